"""The thread that compares rows and topic: when it does, and what it hands over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import pytest

from configs.errors import TransientError
from configs.schema import Kafka
from streams.kafka.reading import ReceivedMessage
from streams.messages.items import Item, encode_item
from streams.ports import Message
from streams.processing.item_repair import Suspects
from streams.recall.memory import MemoryIndex
from streams.worker import item_comparer
from streams.worker.item_comparer import ItemComparer, ItemTopic


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within 10 s"
        time.sleep(0.002)


class Items:
    """A topic whose differences are given; records each comparison."""

    def __init__(self) -> None:
        self.compared: list[int] = []
        self.faults: list[Exception] = []
        self.ends: dict[int, int] = {0: 5, 1: 7}
        self.suspects: list[Suspects] = []
        self.gate = threading.Event()
        self.gate.set()

    def processed(self, partitions: Collection[int]) -> dict[int, int]:
        if self.faults:
            raise self.faults.pop()
        return {p: self.ends[p] for p in partitions if p in self.ends}

    def differences(self, partition: int, processed: int) -> Iterator[Suspects]:
        assert processed == self.ends[partition]
        assert self.gate.wait(10)
        self.compared.append(partition)
        yield from [suspects for suspects in self.suspects if suspects.partition == partition]


class World:
    def __init__(self, *, settle_s: float = 60.0, interval_s: float = 60.0) -> None:
        self.items = Items()
        self.completed = 0
        self.comparer = ItemComparer(
            self.items, settle_s=settle_s, interval_s=interval_s, completed=self._complete, staleness_s=0.0
        )

    def _complete(self) -> None:
        self.completed += 1


def test_partitions_are_compared_when_acquired_once_more_later_and_then_regularly() -> None:
    world = World(settle_s=0.2, interval_s=0.05)
    time.sleep(0.05)
    assert world.items.compared == []
    started = time.monotonic()
    world.comparer.own([0, 1, 2])  # nothing of 2 was processed
    _until(lambda: world.completed == 1)
    assert world.items.compared == [0, 1]
    _until(lambda: world.completed == 2)
    assert time.monotonic() - started >= 0.2
    _until(lambda: world.completed > 3)
    world.comparer.own([])
    time.sleep(0.06)
    before = len(world.items.compared)
    time.sleep(0.1)
    assert len(world.items.compared) == before


def test_differences_are_handed_over_one_chunk_at_a_time() -> None:
    world = World()
    chunks = [Suspects(0, (), {1: 1}), Suspects(0, (), {2: 1}), Suspects(1, (), {3: 1})]
    world.items.suspects = chunks
    world.comparer.own([0, 1])
    for chunk in chunks:
        _until(lambda: world.comparer.found is not None)
        assert world.comparer.found is chunk
        assert world.comparer.found is chunk, "until it is repaired"
        world.comparer.repaired()
    _until(lambda: world.completed == 1)
    assert world.comparer.found is None


def test_what_was_found_for_lost_partitions_is_discarded() -> None:
    world = World()
    world.items.suspects = [Suspects(0, (), {1: 1}), Suspects(0, (), {2: 1})]
    world.comparer.own([0])
    _until(lambda: world.comparer.found is not None)
    world.comparer.own([])
    assert world.comparer.found is None
    world.items.gate.clear()
    world.comparer.own([0])
    _until(lambda: world.comparer._acquisition == 3)
    world.comparer.own([1])
    world.items.gate.set()
    _until(lambda: world.completed == 1)
    assert world.items.compared[-1] == 1
    assert world.comparer.found is None


def test_a_fault_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_comparer, "_RETRY_S", 0.01)
    world = World(settle_s=0.01)
    world.items.faults = [TransientError("Kafka", "unavailable")] * 3
    world.comparer.own([0])
    _until(lambda: world.completed == 1)
    assert world.items.faults == []


def test_a_defect_does_not_end_the_thread() -> None:
    world = World(settle_s=0.01, interval_s=0.01)
    world.items.faults = [ValueError("a defect"), ValueError("a defect")]
    world.comparer.own([0])
    _until(lambda: world.completed == 1)


class Topic:
    """Partition 0 of `items`, as compaction has left it, and the rows that the worker made of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[tuple[int, bytes, bytes | None]] = []  # offset, key, value
        self.begin, self.end = 0, 10
        self.on_read: Callable[[], object] = lambda: None
        self.index = MemoryIndex("m1", 2)
        monkeypatch.setattr(item_comparer, "watermarks", lambda *_: {0: (self.begin, self.end)})
        monkeypatch.setattr(item_comparer, "read_to_end", self._read)
        self.items = ItemTopic(Kafka.__new__(Kafka), "items", "group", self.index, "m1")

    def _read(self, _kafka: Kafka, _topic: str, starts: Mapping[int, int]) -> Iterator[ReceivedMessage]:
        self.on_read()
        for offset, key, value in self.messages:
            if offset >= starts[0]:
                yield ReceivedMessage(Message("items", 0, offset, key, value), {}, 0.0)

    def row(self, item_id: int, offset: int) -> None:
        self.index.upsert(np.array([item_id]), np.array([[0, 1]]), np.array([[0, offset]]))

    def removed(self) -> dict[int, int]:
        """Return the rows that would be deleted."""
        return {item: offset for found in self.items.differences(0, 10) for item, offset in found.removed.items()}


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    return Topic(monkeypatch)


def test_a_row_without_a_message_is_removed(topic: Topic) -> None:
    topic.messages = [(3, b"1", encode_item(Item(1, np.ones(2, np.float32), "m1"))), (9, b"not an id", b"")]
    topic.row(1, 3)
    topic.row(2, 4)
    assert topic.removed() == {2: 5}


@pytest.mark.parametrize("value", [b"hello", encode_item(Item(1, np.ones(2, np.float32), "m2"))])
def test_a_row_whose_newest_message_says_nothing_stays_although_compaction_removed_its_own(
    topic: Topic, value: bytes
) -> None:
    topic.messages = [(8, b"1", value)]
    topic.row(1, 3)
    assert topic.removed() == {}


def test_a_topic_that_seems_to_end_before_what_was_processed_is_not_compared(topic: Topic) -> None:
    """A broker that is not up to date would show no message of newer rows."""
    topic.row(2, 4)
    topic.end = 9
    with pytest.raises(TransientError, match=r"items \[0\] ends at 9, but was read up to 10"):
        topic.removed()


def test_nothing_is_removed_if_retention_has_moved_the_beginning_while_the_topic_was_read(topic: Topic) -> None:
    topic.row(2, 4)
    topic.on_read = lambda: setattr(topic, "begin", 5)
    assert topic.removed() == {}
