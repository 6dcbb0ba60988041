"""An observed index records whether Milvus answers."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray
from streams.errors import RefusedData
from streams.milvus.observed import ObservedIndex
from streams.recall.memory import MemoryIndex
from tests.unit.fakes import FailingIndex

QUERY = np.ones((1, 4), dtype=np.float32)


class World:
    """An observed index over one that fails on demand, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.milvus = FailingIndex(MemoryIndex("m1", 4), failures=0)
        self.index = ObservedIndex(self.milvus, max_age_s=20.0, clock=lambda: self.now)

    def fail_once(self) -> None:
        self.milvus.failures = 1


def test_the_fault_is_that_of_the_last_request() -> None:
    world = World()
    assert world.index.fault is None
    world.fail_once()
    with pytest.raises(TransientError):
        world.index.search(QUERY, 1)
    assert str(world.index.fault).startswith("Milvus: ")
    world.index.search(QUERY, 1)
    assert world.index.fault is None


def test_an_old_answer_proves_nothing() -> None:
    world = World()
    world.index.describe()
    world.now = 30.0
    assert world.index.age_s == 30.0
    assert world.index.fault == "no answer for 30 s"


def test_a_ping_records_the_error_and_does_not_raise_it() -> None:
    world = World()
    world.now = 30.0
    world.fail_once()
    world.index.ping()
    assert str(world.index.fault).startswith("Milvus: ")
    assert world.index.age_s == 0.0
    world.index.ping()
    assert world.index.fault is None


def test_a_rejected_seal_does_not_count() -> None:
    """Milvus rejects it when it is asked too often."""
    world = World()
    world.fail_once()
    with pytest.raises(TransientError):
        world.index.seal()
    assert world.index.fault is None


def test_requests_reach_the_index() -> None:
    world = World()
    world.index.upsert(np.array([3]), QUERY)
    assert world.index.search(QUERY, 1)[0].tolist() == [[3]]
    assert world.index.get(np.array([3])).keys() == {3}
    world.index.delete(np.array([3]))
    assert world.index.describe().count == 0


def test_a_count_is_valid_until_the_next_fault() -> None:
    world = World()
    assert world.index.counted is None
    world.index.upsert(np.array([3]), QUERY)
    world.index.describe()
    world.index.search(QUERY, 1)
    assert world.index.counted == 1
    world.fail_once()
    world.index.ping()
    assert world.index.counted is None
    world.index.search(QUERY, 1)
    assert world.index.counted is None, "an answer proves nothing about the items"
    world.index.describe()
    assert world.index.counted == 1


def test_a_refusal_of_data_is_an_answer() -> None:
    class Refusing(MemoryIndex):
        def get(self, ids: IdArray) -> dict[int, FloatArray]:
            raise RefusedData("Milvus", "cannot parse expression")

    index = ObservedIndex(Refusing("m1", 4), max_age_s=20.0)
    index.describe()
    with pytest.raises(RefusedData):
        index.get(np.array([1]))
    assert index.fault is None
    assert index.counted == 0
