"""Exact search against the obvious way to do it, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import Clicks
from model.evaluation import search as module
from model.evaluation.search import NO_ROW, FloatArray, IdMatrix, exact_top, interests_of, search


def naive(interests: FloatArray, vectors: FloatArray, n: int, seen: list[list[int]]) -> IdMatrix:
    scores = np.einsum("bkd,nd->bkn", interests, vectors).max(axis=1)
    tops = np.full((len(interests), n), NO_ROW)
    for user, rows in enumerate(seen):
        order = [row for row in np.argsort(-scores[user], kind="stable") if row not in rows]
        tops[user, : len(order[:n])] = order[:n]
    return tops


def clicks(rows: list[list[int]]) -> Clicks:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Clicks(np.arange(len(rows)), offsets, np.array([row for user in rows for row in user], np.int64))


@st.composite
def cases(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, int, list[list[int]]]:
    """Small whole numbers: products are exact, and many scores are equal, negative or zero."""
    B, K, D, N = (draw(st.integers(1, most)) for most in (5, 3, 3, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    interests = rng.integers(-2, 3, (B, K, D)).astype(np.float32)
    vectors = rng.integers(-2, 3, (N, D)).astype(np.float32)
    seen = [rng.integers(0, N, rng.integers(0, 2 * N)).tolist() for _ in range(B)]
    return interests, vectors, draw(st.integers(1, N + 3)), seen


@given(cases(), st.sampled_from([(1, 1), (2, 7), (3, 30), (64, 2048)]))
def test_search_equals_sorting_all_scores_in_blocks_of_any_size(
    case: tuple[FloatArray, FloatArray, int, list[list[int]]], tile: tuple[int, int]
) -> None:
    interests, vectors, n, seen = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "USERS", tile[0])
        patch.setattr(module, "ITEMS", tile[1])
        tops = search(interests, vectors, n, clicks(seen))
        alone = exact_top(interests, vectors, n)
    kept = naive(interests, vectors, n, [[]] * len(seen))
    assert tops.kept.tolist() == alone.tolist() == kept.tolist()
    assert tops.unseen.tolist() == naive(interests, vectors, n, seen).tolist()


def test_search_equals_sorting_all_scores_of_a_catalogue_of_several_blocks() -> None:
    rng = np.random.default_rng(0)
    interests = rng.standard_normal((150, 4, 16), dtype=np.float32)
    vectors = rng.standard_normal((5000, 16), dtype=np.float32)
    # The best items of all are among the seen ones: filtering matters.
    best = naive(interests, vectors, 100, [[]] * 150)
    seen = [rng.choice(best[user], 60, replace=False).tolist() for user in range(150)]
    told: list[int] = []
    tops = search(interests, vectors, 50, clicks(seen), told.append)
    assert (tops.kept == best[:, :50]).all()
    assert (tops.unseen == naive(interests, vectors, 50, seen)).all()
    assert sum(told) == 150


def test_interests_of_are_the_ones_with_the_best_score() -> None:
    interests = np.eye(3, dtype=np.float32)[None]  # one user, three interests
    vectors = np.array([[0, 1, 0], [0.1, 0, 0.9], [1, 0.5, 0]], np.float32)
    assert interests_of(interests, vectors, np.array([[2, 0, 1, NO_ROW]])).tolist() == [[0, 1, 2, NO_ROW]]
