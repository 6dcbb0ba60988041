"""Reading topics through a consumer that joins no group."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

import streams.kafka.reading
from configs.errors import TransientError
from configs.loader import load_worker
from streams.kafka.reading import follow, messages_at
from streams.worker.lag import KafkaLag


class _Event:
    """A message, or librdkafka's error in its place."""

    def __init__(self, offset: int, error: KafkaError | None = None, partition: int = 0) -> None:
        self._offset = offset
        self._error = error
        self._partition = partition

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return "clicks"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return None

    value = headers = key

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class _ReadingConsumer:
    """Returns one event at a time; its partition ends at offset 9."""

    def __init__(self, *events: _Event) -> None:
        self._events = list(events)
        self._position = 0
        self.closed = False

    def get_watermark_offsets(self, topic_partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, 9

    def assign(self, topic_partitions: list[TopicPartition]) -> None:
        self._position = topic_partitions[0].offset if topic_partitions else 9

    def consume(self, most: int, timeout: float) -> list[_Event]:
        if not self._events:
            self._position = 9  # only markers and offsets that compaction has removed remain
            return []
        event = self._events.pop(0)
        if event.error() is None:
            self._position = event.offset() + 1
        return [event]

    def position(self, topic_partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition("clicks", 0, self._position)]

    def close(self) -> None:
        self.closed = True


NO_GROUP = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)


def _readable(monkeypatch: pytest.MonkeyPatch, offset: int, *events: _Event) -> bool:
    consumer = _ReadingConsumer(*events)
    monkeypatch.setattr(streams.kafka.reading, "Consumer", lambda *_, **__: consumer)
    try:
        return KafkaLag(load_worker().kafka, "shop", "clicks", 1, "me").readable(0, offset)
    finally:
        assert consumer.closed


def test_the_watchdog_needs_no_group_rights_to_see_that_a_message_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _readable(monkeypatch, 5, _Event(0, NO_GROUP), _Event(5))
    assert not _readable(monkeypatch, 5, _Event(0, NO_GROUP)), "only offsets without messages"
    assert not _readable(monkeypatch, 9), "at the end"


def test_a_refusal_is_transient_for_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransientError):
        _readable(monkeypatch, 5, _Event(0, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))


def test_a_broker_that_goes_down_between_two_requests_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(_ReadingConsumer):
        def get_watermark_offsets(self, topic_partition: TopicPartition, timeout: float) -> tuple[int, int]:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    topics = {"clicks": SimpleNamespace(partitions=[0])}
    monkeypatch.setattr(streams.kafka.reading, "metadata", lambda _: SimpleNamespace(topics=topics))
    monkeypatch.setattr(streams.kafka.reading, "Consumer", lambda *_, **__: Gone())
    with pytest.raises(TransientError):
        next(follow(load_worker().kafka, ["clicks"]))


class _Log(_ReadingConsumer):
    """Partitions of 100,000 messages each, of which retention has removed some, and compaction others."""

    def __init__(self, low: int = 0, removed: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.read = 0
        self._low = low
        self._removed = removed
        self._positions: dict[int, int] = {}

    def get_watermark_offsets(self, topic_partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return self._low, 100_000

    def assign(self, topic_partitions: list[TopicPartition]) -> None:
        self._positions = {tp.partition: tp.offset for tp in topic_partitions}

    def seek(self, topic_partition: TopicPartition) -> None:
        self._positions[topic_partition.partition] = topic_partition.offset

    def incremental_unassign(self, topic_partitions: list[TopicPartition]) -> None:
        for done in topic_partitions:
            del self._positions[done.partition]

    def consume(self, most: int, timeout: float) -> list[_Event]:
        events = [_Event(0, NO_GROUP)]
        for partition, position in self._positions.items():
            end = min(100_000, position + most)
            events += [_Event(n, partition=partition) for n in range(position, end) if n not in self._removed]
            if end == 100_000:
                events.append(_Event(end, KafkaError(KafkaError._PARTITION_EOF), partition))
            self._positions[partition] = end
        self.read += len(events)
        return events


def test_messages_at_offsets_are_found_without_reading_all_that_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _Log(low=5, removed=frozenset({7, 99_999}))
    monkeypatch.setattr(streams.kafka.reading, "Consumer", lambda *_, **__: log)
    kafka = load_worker(None, (), {}).kafka
    wanted = {0: [3, 7, 8, 2_500, 90_000, 99_999, 100_001], 1: [], 2: [50_000, 3]}
    found = messages_at(kafka, "clicks", wanted)
    assert sorted((m.partition, m.offset) for m in found) == [(0, 8), (0, 2_500), (0, 90_000), (2, 50_000)]
    assert log.read < 20_000
    assert log.closed
    assert messages_at(kafka, "clicks", {}) == []
    assert messages_at(kafka, "clicks", {0: [3, 100_000]}) == []
