"""Metrics of recommendation lists, compared with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.clicks import Clicks, Holdout
from model.evaluation.measure import measure_encoder
from model.evaluation.metrics import bootstrap, distinct, diversity, hits, interest_cosine, quality, ranking, shares
from model.serving.encoder import Encoder, Routing


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
    found = quality(np.array([top for top, _ in users]), clicks_of([targets for _, targets in users]), 4)
    recall = hit = ndcg = 0.0
    for top, targets in users:
        wanted = set(targets)
        gains = [1 / math.log2(rank + 2) for rank, item in enumerate(top) if item in wanted]
        recall += len(gains) / len(wanted)
        hit += bool(gains)
        ndcg += sum(gains) / sum(1 / math.log2(rank + 2) for rank in range(min(4, len(wanted))))
    expected = {"recall@4": recall, "hit_rate@4": hit, "ndcg@4": ndcg}
    assert found == pytest.approx({name: value / len(users) for name, value in expected.items()})


def test_one_hit_of_ten_targets_is_not_a_perfect_ranking() -> None:
    found = quality(np.array([[1, 90, 91, 92]]), clicks_of([list(range(1, 11))]), 4)
    assert found["ndcg@4"] == pytest.approx(1 / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)))
    assert found["recall@4"] == pytest.approx(0.1)
    assert found["hit_rate@4"] == 1


def test_ndcg_over_hits_ignores_missed_targets() -> None:
    found, count = hits(np.array([[1, 90, 2, 91], [90, 91, 92, 93], [90, 1, 91, 92]]), clicks_of([[1, 2, 3], [1], [1]]))
    assert found.tolist() == [[True, False, True, False], [False] * 4, [False, True, False, False]]
    assert count.tolist() == [3, 1, 1]
    values = ranking(found, count)
    two = 1 + 1 / math.log2(3)
    assert values["ndcg_over_hits"] == pytest.approx([1.5 / two, 0, 1 / math.log2(3)])
    assert values["ndcg"] == pytest.approx([1.5 / (two + 0.5), 0, 1 / math.log2(3)])
    assert values["recall"] == pytest.approx([2 / 3, 0, 1])
    assert values["hit_rate"] == pytest.approx([1, 0, 1])


def test_diversity_is_one_minus_the_mean_cosine_of_two_items() -> None:
    units = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    top = np.array([[0, 2, -1], [0, 1, -1], [0, 1, 3], [0, -1, -1], [-1, -1, -1]])
    expected = [0, 1, 1 - (0 + 0.6 + 0.8) / 3, np.nan, np.nan]
    assert diversity(top, units) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_labels_are_counted_without_padding() -> None:
    labels = np.array([[2, 0, 2, -1], [1, 1, 1, 1], [-1, -1, -1, -1]])
    assert distinct(labels) == pytest.approx([2, 1, np.nan], nan_ok=True)
    expected = [[1 / 3, 0, 2 / 3], [0, 1, 0], [np.nan] * 3]
    assert shares(labels, 3) == pytest.approx(np.array(expected), nan_ok=True)


def test_the_bootstrap_interval_of_many_users_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal([3, -1], [2, 0.5], (2000, 2))
    low, high = bootstrap(values, rng)
    half = 1.96 * values.std(axis=0) / math.sqrt(2000)
    assert low == pytest.approx(values.mean(axis=0) - half, abs=0.1 * half.max())
    assert high == pytest.approx(values.mean(axis=0) + half, abs=0.1 * half.max())


def test_the_bootstrap_depends_on_its_seed_ignores_missing_values_and_works_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    gaps = np.concatenate([values, np.full((50, 1), np.nan)])
    both = np.concatenate([gaps, np.full((100, 1), np.nan)], axis=1)
    ends = bootstrap(both, np.random.default_rng(3), 200)
    assert ends[0, 0] < values.mean() < ends[1, 0]
    assert np.isnan(ends[:, 1]).all()
    monkeypatch.setattr("model.evaluation.metrics._BOOTSTRAP_BYTES", 8 * 100 * 3)  # three resamples at once
    assert bootstrap(both, np.random.default_rng(3), 200) == pytest.approx(ends, nan_ok=True)
    assert (bootstrap(both, np.random.default_rng(4), 200)[:, 0] != ends[:, 0]).all()


def test_interest_cosine_is_one_for_equal_interests_and_zero_for_orthogonal_ones() -> None:
    equal = np.ones((3, 4, 4), np.float32)
    different = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    assert interest_cosine(equal) == pytest.approx(1)
    assert interest_cosine(different) == pytest.approx(0)
    assert interest_cosine(equal[:, :1]) == interest_cosine(equal[:0]) == 0


def test_unknown_items_are_left_out_of_histories_and_count_as_missed_targets() -> None:
    D = 4
    weights = {"bilinear": np.eye(D), "output": np.eye(D), "bias": np.zeros(D)}
    weights |= {"start": np.zeros((1, 2)), "recency": np.zeros(2)}
    routing = Routing(3, 1.0, "interests", normalise=True, relu=False, residual=0.0, by_history=False)
    encoder = Encoder({name: value.astype(np.float32) for name, value in weights.items()}, routing)
    ids, vectors = np.array([10, 20, 30, 40]), np.eye(D, dtype=np.float32)
    users = Holdout(clicks_of([[20, 99, 98], [99], [30]]), clicks_of([[20], [20], [30, 99]]))
    found = measure_encoder(encoder, ids, vectors, users, 1)
    assert found["recall@1"] == pytest.approx((1 + 0 + 0.5) / 3)
    longest = measure_encoder(encoder, ids, vectors, users, 9)  # without a list, there is no hit
    assert longest["recall@9"] == pytest.approx((1 + 0 + 0.5) / 3)
