"""Looking up history embeddings: the model's matrix, then the cache over the index."""

from __future__ import annotations

import numpy as np

from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.memory import MemoryIndex
from streams.recall.ports import FloatArray, IdArray
from tests.unit.fakes import FewItems


class CountingIndex(MemoryIndex):
    def __init__(self) -> None:
        super().__init__("m1", 3)
        self.asked: list[list[int]] = []

    def get(self, ids: IdArray) -> dict[int, FloatArray]:
        self.asked.append(ids.tolist())
        return dict(super().get(ids))


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def _world(capacity: int = 10) -> tuple[HistoryEmbeddings, CountingIndex, Clock]:
    index, clock = CountingIndex(), Clock()
    lookup = HistoryEmbeddings(FewItems(3), index, capacity=capacity, refresh=60.0, unknown_ttl=1.0, clock=clock)
    return lookup, index, clock


def test_items_of_the_model_need_no_index() -> None:
    lookup, index, _ = _world()
    vectors, found = lookup.lookup(np.array([2, 1, 2]))
    np.testing.assert_array_equal(vectors, np.eye(3)[[1, 0, 1]])
    assert found.all()
    assert index.asked == []


def test_later_items_are_asked_for_once_in_one_request() -> None:
    lookup, index, clock = _world()
    index.upsert(np.array([10, 11]), np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32))
    ids = np.array([11, 1, 10, 99, 11])
    for _ in range(3):
        vectors, found = lookup.lookup(ids)
        np.testing.assert_array_equal(vectors[0], [4, 5, 6])
        np.testing.assert_array_equal(vectors[4], [4, 5, 6])
        assert found.tolist() == [True, True, True, False, True]
        assert not vectors[3].any()
    assert index.asked == [[10, 11, 99]]
    clock.now += 1.5
    lookup.lookup(ids)
    assert index.asked[1:] == [[99]], "only the unknown one is asked for again after a second"
    clock.now += 60
    lookup.lookup(ids)
    assert index.asked[2:] == [[10, 11, 99]]


def test_the_cache_is_bounded() -> None:
    lookup, _, _ = _world(capacity=4)
    for start in range(100, 200, 3):
        lookup.lookup(np.arange(start, start + 3))
    assert len(lookup._cache) <= 4


def test_no_items_is_no_question() -> None:
    lookup, index, _ = _world()
    vectors, found = lookup.lookup(np.empty(0, dtype=np.int64))
    assert vectors.shape == (0, 3)
    assert found.shape == (0,)
    assert index.asked == []
