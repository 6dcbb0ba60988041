"""Embeddings come from the model's matrix, or from the index through a cache."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model.arrays import FloatArray, IdArray
from model.serving.norms import Norms
from streams.errors import RefusedData
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


class RefusingIndex(RecordingIndex):
    """An index that refuses to look up some ids."""

    refused = frozenset({-(2**63), 50})

    def get(self, ids: IdArray) -> dict[int, FloatArray]:
        found = super().get(ids)
        if not self.refused.isdisjoint(ids.tolist()):
            raise RefusedData("Milvus", "cannot parse expression")
        return found


def test_refused_ids_count_as_unknown_and_the_others_are_found(caplog: pytest.LogCaptureFixture) -> None:
    index, clock = RefusingIndex(), Clock()
    new = np.arange(10, 90)
    index.upsert(new, np.ones((80, 3), dtype=np.float32))
    lookup = HistoryEmbeddings(FewItems(3), index, capacity=100, refresh_s=60.0, unknown_ttl_s=1.0, clock=clock)
    ids = np.array([-(2**63), 1, *new], dtype=np.int64)
    for _ in range(2):
        _, found = lookup.lookup(ids)
        assert ids[~found].tolist() == [-(2**63), 50]
        clock.now += 61.0
    assert len(index.requests) < 40
    assert index.requests[-1] == [item for item in new.tolist() if item != 50], "in one request again"
    assert len(caplog.messages) == 2
    assert "cannot parse expression; item 50 of a history counts as unknown" in caplog.text


@pytest.mark.parametrize(
    ("vector", "text"),
    [([100, 0, 0], "norm 100"), ([math.nan, 0, 0], "norm nan"), ([1e38, 1e38, 0], "norm 1.41421e+38")],
)
def test_a_vector_that_is_not_the_models_counts_as_unknown(
    vector: list[float], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    index, clock = RecordingIndex(), Clock()
    index.upsert(np.array([10, 11]), np.array([[0, 1, 0], vector], dtype=np.float32))
    lookup = HistoryEmbeddings(
        FewItems(3),
        index,
        capacity=9,
        refresh_s=60.0,
        unknown_ttl_s=1.0,
        norms=Norms(0.99, 1.01, unit=True),
        clock=clock,
    )
    for _ in range(2):
        vectors, found = lookup.lookup(np.array([10, 11]))
        assert found.tolist() == [True, False]
        assert not vectors[1].any()
        clock.now += 2.0
    assert [message for message in caplog.messages if text in message] == caplog.messages
    assert len(caplog.messages) == 1
    index.upsert(np.array([11]), np.array([[0, 0, 1]], dtype=np.float32))
    assert lookup.lookup(np.array([11]))[1].all(), "a right vector takes its place within a second"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_by_default_a_vector_must_be_finite(number: float) -> None:
    lookup, index, _ = _world()
    index.upsert(np.array([10]), np.array([[1, number, 3]], dtype=np.float32))
    assert not lookup.lookup(np.array([10]))[1].any()


def test_threads_look_up_new_items_one_after_the_other() -> None:
    class SlowIndex(RecordingIndex):
        running = most = 0

        def get(self, ids: IdArray) -> dict[int, FloatArray]:
            self.running += 1
            self.most = max(self.most, self.running)
            time.sleep(0.01)
            self.running -= 1
            return super().get(ids)

    index = SlowIndex()
    lookup = HistoryEmbeddings(FewItems(3), index, capacity=10, refresh_s=60.0, unknown_ttl_s=1.0)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lookup.lookup, [np.array([10 + number % 2]) for number in range(8)]))
    assert index.most == 1
    assert sorted(index.requests) == [[10], [11]], "the others found it in the cache"
