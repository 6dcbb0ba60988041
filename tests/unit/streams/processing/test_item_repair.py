"""Rows that differ from the topic are repaired if they still do."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray, IntMatrix
from streams.errors import BadMessage, RefusedData
from streams.messages.items import Item, ItemRemoval, decode_item, encode_item
from streams.metrics import REPAIRS, ItemMetrics
from streams.ports import Message
from streams.processing.item_repair import ItemRepairer, RecentRemovals, Suspects
from streams.recall.memory import MemoryIndex
from tests.unit.fakes import FailingIndex


class RefusingIndex(FailingIndex):
    """Refuses requests with item 13."""

    def upsert(self, ids: IdArray, vectors: FloatArray, sources: IntMatrix | None = None) -> None:
        if 13 in ids:
            raise RefusedData("Milvus", "cannot parse expression")
        super().upsert(ids, vectors, sources)


class World:
    def __init__(self) -> None:
        self.memory = MemoryIndex("m1", 2)
        self.index = RefusingIndex(self.memory, 0)
        self.metrics = ItemMetrics(CollectorRegistry())
        self.removals = RecentRemovals(capacity=2)
        self.repairer = ItemRepairer(self.index, self._decode, self.removals, self.metrics)

    @staticmethod
    def _decode(message: Message) -> Item | ItemRemoval | None:
        item = decode_item(message.key, message.value)
        return None if isinstance(item, Item) and item.model_version != "m1" else item

    def row(self, item_id: int, partition: int, offset: int) -> None:
        self.memory.upsert(np.array([item_id]), np.array([[0, 1]]), np.array([[partition, offset]]))

    def repair(self, messages: list[Message], removed: dict[int, int] | None = None) -> dict[str, int]:
        """Repair partition 0; return what was repaired."""
        self.repairer.repair(Suspects(0, messages, removed or {}))
        counts = {kind: int(self.metrics.repaired.labels(kind)._value.get()) for kind in REPAIRS}
        return {kind: count for kind, count in counts.items() if count}

    def source(self, item_id: int) -> tuple[int, int] | None:
        return self.memory.sources(np.array([item_id])).get(item_id)


def _message(item_id: int, offset: int, version: str = "m1") -> Message:
    value = encode_item(Item(item_id, np.array([1, 0], np.float32), version))
    return Message("items", 0, offset, str(item_id).encode(), value)


def test_rows_are_added_rewritten_and_deleted() -> None:
    world = World()
    world.row(2, 0, 4)
    world.row(3, 0, 4)
    assert world.repair([_message(1, 8), _message(2, 9)], {3: 7, 4: 7}) == {"added": 1, "rewritten": 1, "deleted": 1}
    assert [world.source(item) for item in (1, 2, 3)] == [(0, 8), (0, 9), None]
    np.testing.assert_array_equal(world.memory.get(np.array([2]))[2], [1, 0])


def test_a_row_that_was_superseded_meanwhile_stays() -> None:
    world = World()
    world.row(1, 0, 9)
    world.row(2, 0, 10)
    world.row(3, 0, 7)
    assert world.repair([_message(1, 9), _message(2, 9)], {3: 7}) == {}
    assert [world.source(item) for item in (1, 2, 3)] == [(0, 9), (0, 10), (0, 7)]


def test_an_item_that_was_removed_meanwhile_is_not_added_again() -> None:
    world = World()
    world.removals.add(1, 0, 9)  # after the message that was compared
    world.removals.add(2, 0, 7)  # before it
    assert world.repair([_message(1, 8), _message(2, 8)]) == {"added": 1}
    assert (world.source(1), world.source(2)) == (None, (0, 8))


def test_the_oldest_removals_are_forgotten_first() -> None:
    removals = RecentRemovals(capacity=2)
    for item, offset in ((1, 1), (2, 2), (1, 3), (3, 4)):
        removals.add(item, 0, offset)
    assert [removals.since(item, 0, 0) for item in (1, 2, 3)] == [True, False, True]
    assert not removals.since(1, 1, 0), "offsets of two partitions cannot be compared"


def test_a_row_of_another_partition_is_left_to_it() -> None:
    """Otherwise the owners of two partitions that both have messages of an item would undo each other's work."""
    world = World()
    world.row(1, 3, 2)
    world.row(2, 3, 2)
    assert world.repair([_message(1, 9)], {2: 9}) == {}
    assert (world.source(1), world.source(2)) == ((3, 2), (3, 2))


def test_a_row_that_no_message_has_written_is_rewritten_but_not_deleted() -> None:
    world = World()
    world.row(1, -1, -1)
    world.row(2, -1, -1)
    assert world.repair([_message(1, 0)], {2: 5}) == {"rewritten": 1}
    assert (world.source(1), world.source(2)) == ((0, 0), (-1, -1))


def test_messages_that_became_dead_letters_or_are_of_another_model_are_left_out() -> None:
    world = World()
    broken = Message("items", 0, 5, b"5", b"{")
    with pytest.raises(BadMessage):
        world._decode(broken)
    assert world.repair([broken, _message(6, 6, "m2"), _message(13, 7), _message(1, 8)]) == {"added": 1}
    assert world.source(1) == (0, 8)


def test_a_repair_that_failed_is_done_again() -> None:
    world = World()
    world.index.failures = 1
    with pytest.raises(TransientError):
        world.repair([_message(1, 8)])
    assert world.repair([_message(1, 8)]) == {"added": 1}
