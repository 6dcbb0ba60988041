"""Exact search compared with a simple implementation, with blocks of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.arrays import FloatArray
from model.data.clicks import Clicks
from model.evaluation import search as module
from model.evaluation.search import NO_ROW, exact_top, search
from model.serving.merge import merge


def naive(
    interests: FloatArray, vectors: FloatArray, n: int, seen: list[list[int]], fusion: float
) -> tuple[list[list[int]], list[list[int]]]:
    """Return rows and the interests that recalled them, both filled up with -1."""
    scores = np.einsum("bkd,nd->bkn", interests, vectors)
    rows, recalled_by = [], []
    for user, excluded in enumerate(seen):
        order = [[r for r in np.argsort(-one, kind="stable") if r not in excluded][:n] for one in scores[user]]
        lists = np.array([[r + 1 for r in found] for found in order], np.int64)  # (K, ≤ n)
        found = np.array([one[rows_] for one, rows_ in zip(scores[user], order, strict=True)], np.float32)
        (merged,) = merge(lists[None], found[None], n, fusion=fusion)
        empty = [NO_ROW] * (n - len(merged.item_ids))
        rows.append((merged.item_ids - 1).tolist() + empty)
        recalled_by.append(merged.interests.tolist() + empty)
    return rows, recalled_by


def clicks(rows: list[list[int]]) -> Clicks:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Clicks(np.arange(len(rows)), offsets, np.array([row for user in rows for row in user], np.int64))


@st.composite
def cases(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, int, list[list[int]]]:
    """Draw small integers: products are exact, and many scores are equal, negative or zero."""
    B, K, D, N = (draw(st.integers(1, most)) for most in (5, 3, 3, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    interests = rng.integers(-2, 3, (B, K, D)).astype(np.float32)
    vectors = rng.integers(-2, 3, (N, D)).astype(np.float32)
    seen = [rng.integers(0, N, rng.integers(0, 2 * N)).tolist() for _ in range(B)]
    return interests, vectors, draw(st.integers(1, N + 3)), seen


@given(cases(), st.sampled_from([(1, 1), (2, 7), (3, 30), (64, 2048)]), st.sampled_from([0.0, 0.5]))
def test_search_equals_merging_sorted_lists_in_blocks_of_any_size(
    case: tuple[FloatArray, FloatArray, int, list[list[int]]], tile: tuple[int, int], fusion: float
) -> None:
    interests, vectors, n, seen = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE_USERS", tile[0])
        patch.setattr(module, "TILE_ITEMS", tile[1])
        tops = search(interests, vectors, n, fusion, clicks(seen))
        without_seen = exact_top(interests, vectors, n, fusion)
    kept = naive(interests, vectors, n, [[]] * len(seen), fusion)
    assert (tops.kept.rows.tolist(), tops.kept.interests.tolist()) == kept
    assert without_seen.tolist() == kept[0]
    assert (tops.filtered.rows.tolist(), tops.filtered.interests.tolist()) == naive(interests, vectors, n, seen, fusion)


def test_search_equals_merging_sorted_lists_of_a_catalogue_of_several_blocks() -> None:
    rng = np.random.default_rng(0)
    interests = rng.standard_normal((150, 4, 16), dtype=np.float32)
    vectors = rng.standard_normal((5000, 16), dtype=np.float32)
    # The best items are among the seen ones, so that filtering matters.
    best, _ = naive(interests, vectors, 100, [[]] * 150, 0.5)
    seen = [rng.choice(best[user], 60, replace=False).tolist() for user in range(150)]
    reported: list[int] = []
    tops = search(interests, vectors, 50, 0.5, clicks(seen), reported.append)
    assert tops.kept.rows.tolist() == naive(interests, vectors, 50, [[]] * 150, 0.5)[0]
    assert tops.filtered.rows.tolist() == naive(interests, vectors, 50, seen, 0.5)[0]
    assert sum(reported) == 150


def test_without_fusion_the_best_items_of_any_interest_are_found() -> None:
    rng = np.random.default_rng(1)
    interests = rng.standard_normal((5, 4, 16), dtype=np.float32)
    vectors = rng.standard_normal((300, 16), dtype=np.float32)
    best = np.argsort(-np.einsum("bkd,nd->bkn", interests, vectors).max(axis=1), axis=1)[:, :20]
    assert (exact_top(interests, vectors, 20, 0.0) == best).all()
