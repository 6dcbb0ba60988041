"""All items published and removed, with a topic in memory and the real item processor behind it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from configs.errors import TransientError
from configs.schema import Partitioner
from streams.errors import BadMessage
from streams.service.bulk import BulkRunning, ItemsMissing, OtherModelsItems
from tests.unit.streams.service.item_stream import PARTITIONS, ItemStream, Source


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.service.bulk._POLL_INTERVAL_S", 0.001)
    monkeypatch.setattr("streams.service.items_topic._CHUNK", 100)


def test_all_items_can_be_recalled_when_the_call_returns() -> None:
    stream = ItemStream()
    stream.step = 7
    bulk = stream.bulk(Source.with_items(250))
    assert bulk.insert() == 250
    assert stream.count == 250
    assert bulk.insert() == 250, "again changes nothing"
    assert stream.count == 250


def test_after_a_removal_nothing_is_left_and_nothing_returns() -> None:
    stream = ItemStream()
    bulk = stream.bulk(Source.with_items(250))
    bulk.insert()
    stream.publish(9000)  # not of the artifact
    stream.publish(9001)
    stream.work()
    stream.publish(9002)  # not processed yet
    assert bulk.remove_all() == 253
    assert stream.count == 0
    assert bulk.remove_all() == 0, "nothing is written for items that are removed already"

    stream.done = dict.fromkeys(range(PARTITIONS), 0)  # a new collection is filled from the beginning of the topic
    stream.work()
    assert stream.count == 0
    assert bulk.insert() == 250
    assert stream.count == 250


def test_rows_that_no_message_wrote_and_messages_without_a_row_are_removed_too() -> None:
    stream = ItemStream()
    stream.publish(1)
    stream.work()
    stream.index.delete(np.array([1]))  # the item worker would write it again when it compares the rows
    stream.index.upsert(np.array([5]), np.array([[1, 0]], np.float32))
    assert stream.bulk(Source.with_items(3)).remove_all() == 2
    assert stream.count == 0
    assert {m.key for m in stream.messages if m.value is None} == {b"1", b"5"}


@pytest.mark.parametrize("partitioner", ["murmur2", "any"])
def test_an_item_is_removed_in_the_partition_that_its_messages_are_in(partitioner: Partitioner) -> None:
    stream = ItemStream(partitioner)
    other = (stream.keys.target(b"7") + 1) % PARTITIONS
    stream.publish(7, partition=other)
    stream.work()
    refused = partitioner != "any"
    assert len(stream.dead_letters.sent) == refused
    assert stream.bulk(Source.with_items(3)).remove_all() == (not refused)
    assert [m.partition for m in stream.messages if m.value is None] == [other] * (not refused)
    assert len(stream.dead_letters.sent) == refused, "no tombstone becomes a dead letter"


def test_items_that_another_model_has_now_are_not_removed() -> None:
    stream = ItemStream()
    bulk = stream.bulk(Source.with_items(20))
    bulk.insert()
    stream.publish(8, "m2")
    stream.publish(900, "m2")  # not in this collection
    with pytest.raises(OtherModelsItems, match=r"1 items .*OPERATIONS"):
        bulk.remove_all()
    assert stream.count == 20
    assert not [m for m in stream.messages if m.value is None]


def test_an_item_worker_that_does_not_work_is_named_with_what_is_there() -> None:
    stream = ItemStream()
    stream.step = 0
    stream.index.upsert(np.array([5]), np.array([[1, 0]], np.float32))
    with pytest.raises(ItemsMissing, match=r"holds 1 items.*about 20 messages.*--agents items"):
        stream.bulk(Source.with_items(20), timeout_s=0.05).insert()


def test_items_that_are_missing_afterwards_are_counted() -> None:
    stream = ItemStream()

    def remove_some() -> None:
        stream.work()
        stream.index.delete(np.array([3, 4]))

    stream.on_ask = remove_some
    with pytest.raises(ItemsMissing, match="all 20 items, but the collection holds 18"):
        stream.bulk(Source.with_items(20)).insert()


def test_items_that_were_published_later_do_not_stand_for_missing_ones() -> None:
    stream = ItemStream()
    stream.index.upsert(np.array([500, 501]), np.array([[1, 0]] * 2, np.float32))

    def remove_one() -> None:
        stream.work()
        stream.index.delete(np.array([3]))

    stream.on_ask = remove_one
    with pytest.raises(ItemsMissing, match="holds 19 of them"):
        stream.bulk(Source.with_items(20)).insert()


def test_kafka_may_be_unavailable_while_it_waits() -> None:
    stream = ItemStream()
    failures = iter([True, True])

    def fail() -> None:
        if next(failures, False):
            raise TransientError("Kafka", "for the test")

    stream.on_ask = fail
    assert stream.bulk(Source.with_items(20)).insert() == 20
    failures = iter([True] * 10_000)
    with pytest.raises(ItemsMissing, match="for the test"):
        stream.bulk(Source.with_items(20), timeout_s=0.05).insert()


def test_a_second_call_meanwhile_is_refused() -> None:
    stream = ItemStream()
    bulk = stream.bulk(Source.with_items(20))
    refused: list[str] = []

    def call_again() -> None:
        for call in (bulk.insert, bulk.remove_all):
            with pytest.raises(BulkRunning, match="call again"):
                call()
            refused.append(call.__name__)

    stream.on_ask = call_again
    assert bulk.insert() == 20
    assert refused == ["insert", "remove_all"]
    stream.on_ask = lambda: None
    assert bulk.remove_all() == 20, "the first call has ended"


def test_an_insert_and_a_drop_of_two_services_end_with_what_the_last_message_of_each_item_says() -> None:
    """They exclude each other within a service only, and neither reports more than it knows."""
    stream = ItemStream()
    one, other = stream.bulk(Source.with_items(250)), stream.bulk(Source.with_items(250))
    one.insert()
    results: list[object] = []

    def insert_meanwhile() -> None:  # the removals are written, and not processed yet
        stream.on_ask = lambda: None
        results.append(other.insert())

    stream.on_ask = insert_meanwhile
    results.append(one.remove_all())
    assert results == [250, 250], "the drop has removed 250 items, which were published again"
    assert stream.count == 250

    def drop_meanwhile() -> None:  # the items are written, and not processed yet
        stream.on_ask = lambda: None
        results.append(other.remove_all())

    stream.on_ask = drop_meanwhile
    with pytest.raises(ItemsMissing, match=r"holds 0 of them: .* removed meanwhile"):
        one.insert()
    assert (results[2:], stream.count) == ([250], 0)

    chunks = iter(range(100))

    def drop_while_it_is_written() -> None:
        if next(chunks) == 1:  # after the first hundred
            results.append(other.remove_all())

    stream.on_send = drop_while_it_is_written
    with pytest.raises(ItemsMissing, match=r"holds 150 of them"):
        one.insert()
    assert (results[3:], stream.count) == ([100], 150)
    stream.done = dict.fromkeys(range(PARTITIONS), 0)
    stream.work()
    assert stream.count == 150, "so it stays when the collection is filled again"


def test_a_stop_ends_the_wait() -> None:
    stream = ItemStream()
    stream.step = 0
    bulk = stream.bulk(Source.with_items(20), timeout_s=1000)
    stream.on_ask = stream.stopping.set
    caught: list[ItemsMissing] = []

    def insert() -> None:
        with pytest.raises(ItemsMissing) as error:
            bulk.insert()
        caught.append(error.value)

    thread = threading.Thread(target=insert)
    thread.start()
    thread.join(20)
    assert "is being stopped" in str(caught[0])


def test_a_stop_while_messages_are_written_says_how_many_are() -> None:
    stream = ItemStream()
    bulk = stream.bulk(Source.with_items(250))
    stream.on_send = stream.stopping.set
    with pytest.raises(ItemsMissing, match=r"messages for 100 of 250 items are written, .* published; call again"):
        bulk.insert()
    assert len(stream.messages) == 100
    stream.on_send = lambda: None
    stream.stopping.clear()
    assert bulk.insert() == 250
    stream.on_send = stream.stopping.set
    with pytest.raises(ItemsMissing, match=r"messages for \d+ of 250 items are written, .* removed; call again"):
        bulk.remove_all()
    assert 0 < sum(m.value is None for m in stream.messages) < 250


def test_a_model_that_the_item_worker_would_refuse_is_not_published() -> None:
    stream, source = ItemStream(), Source.with_items(20)
    source.item_vectors[4] *= 5
    with pytest.raises(BadMessage, match="item 5 has norm 5"):
        stream.bulk(source).insert()
    assert not stream.messages
