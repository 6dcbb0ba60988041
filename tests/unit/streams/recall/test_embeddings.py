"""Embeddings come from the model's matrix, or from the index through a cache."""

from __future__ import annotations

import numpy as np

from model.arrays import FloatArray, IdArray
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.memory import MemoryIndex
from tests.unit.fakes import FewItems


class RecordingIndex(MemoryIndex):
    """An index that records the ids of every request."""

    def __init__(self) -> None:
        super().__init__("m1", 3)
        self.requests: list[list[int]] = []

    def get(self, ids: IdArray) -> dict[int, FloatArray]:
        self.requests.append(ids.tolist())
        return dict(super().get(ids))


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def _world(capacity: int = 10) -> tuple[HistoryEmbeddings, RecordingIndex, Clock]:
    index, clock = RecordingIndex(), Clock()
    lookup = HistoryEmbeddings(FewItems(3), index, capacity=capacity, refresh_s=60.0, unknown_ttl_s=1.0, clock=clock)
    return lookup, index, clock


def test_items_of_the_model_need_no_request() -> None:
    lookup, index, _ = _world()
    vectors, found = lookup.lookup(np.array([2, 1, 2]))
    np.testing.assert_array_equal(vectors, np.eye(3)[[1, 0, 1]])
    assert found.all()
    assert index.requests == []


def test_items_published_after_training_are_looked_up_once_in_one_request() -> None:
    lookup, index, clock = _world()
    index.upsert(np.array([10, 11]), np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32))
    ids = np.array([11, 1, 10, 99, 11])
    for _ in range(3):
        vectors, found = lookup.lookup(ids)
        np.testing.assert_array_equal(vectors[0], [4, 5, 6])
        np.testing.assert_array_equal(vectors[4], [4, 5, 6])
        assert found.tolist() == [True, True, True, False, True]
        assert not vectors[3].any()
    assert index.requests == [[10, 11, 99]]
    clock.now += 1.5
    lookup.lookup(ids)
    assert index.requests[1:] == [[99]], "after a second, only the unknown id is looked up again"
    clock.now += 60
    lookup.lookup(ids)
    assert index.requests[2:] == [[10, 11, 99]]


def test_the_cache_is_bounded() -> None:
    lookup, _, _ = _world(capacity=4)
    for start in range(100, 200, 3):
        lookup.lookup(np.arange(start, start + 3))
    assert len(lookup._cache) <= 4


def test_no_ids_need_no_request() -> None:
    lookup, index, _ = _world()
    vectors, found = lookup.lookup(np.empty(0, dtype=np.int64))
    assert vectors.shape == (0, 3)
    assert found.shape == (0,)
    assert index.requests == []
