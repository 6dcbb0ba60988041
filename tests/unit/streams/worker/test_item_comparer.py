"""The thread that compares rows and topic: when it does, and what it hands over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator

import pytest

from configs.errors import TransientError
from streams.processing.item_repair import Suspects
from streams.worker import item_comparer
from streams.worker.item_comparer import ItemComparer


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
