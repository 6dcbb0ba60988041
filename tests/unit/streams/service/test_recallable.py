"""Waiting for an item: until it is found as published, or a later message has replaced it, but not without end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

import numpy as np
import pytest

from model.arrays import IdArray
from streams.messages.items import Item
from streams.recall.memory import MemoryIndex
from streams.service.recallable import RecallableItems
from streams.service.shared_producer import Written
from streams.service.threads import ThreadCalls
from tests.unit.fakes import FailingIndex

ITEM = Item(7, np.array([0.6, 0.8], np.float32), "m1")
WRITTEN = Written(2, 40)
CALLS = ThreadCalls("test", 2, 10, 20)


class RecoveringIndex(FailingIndex):
    """Says when it is available again, and its first answer has been read."""

    def __init__(self, inner: MemoryIndex, failures: int) -> None:
        super().__init__(inner, failures)
        self.recovered = threading.Event()

    def sources(self, ids: IdArray) -> Mapping[int, tuple[int, int]]:
        found = super().sources(ids)
        self.recovered.set()
        return found


def _write(index: MemoryIndex, vector: list[float], offset: int, partition: int = 2) -> None:
    index.upsert(np.array([7]), np.array([vector], np.float32), np.array([[partition, offset]]))


def _wait(index: FailingIndex, timeout_s: float = 20) -> float | None:
    return asyncio.run(RecallableItems(index, CALLS, timeout_s).wait(ITEM, WRITTEN))


@pytest.mark.parametrize(
    ("vector", "offset", "found"),
    [([0.6, 0.8], 40, True), ([0, 1], 39, False), ([0, 1], 41, True)],
    ids=["this message", "an older one", "a later one"],
)
def test_it_is_recallable_when_the_row_is_not_older(vector: list[float], offset: int, found: bool) -> None:
    memory = MemoryIndex("m1", 2)
    _write(memory, vector, offset)
    seconds = _wait(FailingIndex(memory, 0), 20 if found else 0.1)
    assert (seconds is not None) == found


def test_an_offset_of_another_partition_is_not_later() -> None:
    memory = MemoryIndex("m1", 2)
    _write(memory, [0, 1], 5000, partition=1)
    assert _wait(FailingIndex(memory, 0), 0.1) is None


def test_it_waits_for_the_item_worker_and_for_milvus() -> None:
    memory = MemoryIndex("m1", 2)
    index = RecoveringIndex(memory, 3)

    async def scenario() -> float | None:
        waiting = asyncio.create_task(RecallableItems(index, CALLS, 20).wait(ITEM, WRITTEN))
        await asyncio.to_thread(index.recovered.wait, 20)
        _write(memory, [0.6, 0.8], 40)
        return await waiting

    assert asyncio.run(scenario()) is not None


def test_it_does_not_wait_without_end() -> None:
    assert _wait(FailingIndex(MemoryIndex("m1", 2), 0), 0.05) is None
