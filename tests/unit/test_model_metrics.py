from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import metrics
from model.data import Clicks, Holdout
from model.encoder import Encoder, Routing
from model.evaluate import evaluate
from model.metrics import exact_top, interest_cosine, quality


def clicks_of(rows: list[list[int]]) -> Clicks:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Clicks(np.arange(len(rows)), offsets, np.array([item for row in rows for item in row], np.int64))


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-20, 20), min_size=4, max_size=4, unique=True),
            st.lists(st.integers(-20, 20), min_size=1, max_size=7),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_quality_equals_its_definition(users: list[tuple[list[int], list[int]]]) -> None:
    found = quality(np.array([top for top, _ in users]), clicks_of([targets for _, targets in users]))
    recall = hit = ndcg = 0.0
    for top, targets in users:
        wanted = set(targets)
        gains = [1 / math.log2(place + 2) for place, item in enumerate(top) if item in wanted]
        recall += len(gains) / len(wanted)
        hit += bool(gains)
        ndcg += sum(gains) / sum(1 / math.log2(place + 2) for place in range(min(4, len(wanted))))
    expected = {"recall@4": recall, "hit_rate@4": hit, "ndcg@4": ndcg}
    assert found == pytest.approx({name: value / len(users) for name, value in expected.items()})


def test_one_hit_of_ten_targets_is_no_perfect_ranking() -> None:
    found = quality(np.array([[1, 90, 91, 92]]), clicks_of([list(range(1, 11))]))
    assert found["ndcg@4"] == pytest.approx(1 / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)))
    assert found["recall@4"] == pytest.approx(0.1)
    assert found["hit_rate@4"] == 1


@pytest.mark.parametrize("memory", [1, 2**28])
def test_exact_top_is_the_merge_of_the_interests(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SEARCH_MEMORY", memory)
    rng = np.random.default_rng(0)
    interests = rng.standard_normal((7, 3, 5), dtype=np.float32)
    vectors = rng.standard_normal((40, 5), dtype=np.float32)
    scores = np.einsum("bkd,nd->bkn", interests, vectors).max(axis=1)
    assert (exact_top(interests, vectors, 10) == np.argsort(-scores, axis=1)[:, :10]).all()
    assert (exact_top(interests, vectors, 40) == np.argsort(-scores, axis=1)).all()


def test_interest_cosine_tells_equal_interests_from_different_ones() -> None:
    equal = np.ones((3, 4, 4), np.float32)
    different = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    assert interest_cosine(equal) == pytest.approx(1)
    assert interest_cosine(different) == pytest.approx(0)
    assert interest_cosine(equal[:, :1]) == interest_cosine(equal[:0]) == 0


def test_evaluate_drops_unknown_items_from_histories_and_misses_them_as_targets() -> None:
    D = 4
    weights = {"bilinear": np.eye(D), "output": np.eye(D), "bias": np.zeros(D)}
    weights |= {"start": np.zeros((1, 2)), "recency": np.zeros(2)}
    encoder = Encoder({name: value.astype(np.float32) for name, value in weights.items()}, Routing(3, 1.0, "unit", 0.0))
    ids, vectors = np.array([10, 20, 30, 40]), np.eye(D, dtype=np.float32)
    users = Holdout(clicks_of([[20, 99, 98], [99], [30]]), clicks_of([[20], [20], [30, 99]]))
    found = evaluate(encoder, ids, vectors, users, 1)
    assert found["recall@1"] == pytest.approx((1 + 0 + 0.5) / 3)
