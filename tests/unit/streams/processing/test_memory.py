"""The protocols in memory."""

from __future__ import annotations

from streams.ports import Output
from streams.processing.memory import MemoryHistoryStore, MemoryRecordProducer


def test_the_store_keeps_records_by_partition_and_the_newest_changelog_offset() -> None:
    store = MemoryHistoryStore()
    store.write(0, {b"a": b"1", b"b": b"2"}, [4, 5])
    store.write(1, {b"a": b"3"}, [9])
    assert store.read(0, [b"b", b"a", b"c"]) == [b"2", b"1", None]
    assert store.read(1, [b"a"]) == [b"3"]
    assert store.offsets == {0: 5, 1: 9}


def test_the_producer_numbers_messages_and_reports_when_they_are_queued() -> None:
    producer = MemoryRecordProducer()
    queued: list[int] = []
    first, second = Output("t", b"k", b"1"), Output("t", b"k", b"2")
    assert list(producer.send([first], lambda: queued.append(len(producer.sent)))) == [0]
    assert list(producer.send([second])) == [1]
    assert (producer.sent, queued) == ([first, second], [1])
