"""Merging the candidates of a user's interests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.serving.merge import PADDING, merge


def _reference(
    ids: np.ndarray, scores: np.ndarray, top_k: int, seen: set[int], fusion: float
) -> list[tuple[int, float, int]]:
    """Merge by the definition, one user at a time, with dicts."""
    lists: list[dict[int, tuple[np.float32, int]]] = []  # for each interest: item → score, rank
    for found, values in zip(ids.tolist(), scores, strict=True):
        usable = [(item, (values[rank], rank)) for rank, item in enumerate(found) if item not in {PADDING, *seen}]
        lists.append(dict(usable[:top_k]))
    filled = [found for found in lists if found]
    ranked = []
    for item in set().union(*lists):
        score, k, rank = min((-found[item][0], k, found[item][1]) for k, found in enumerate(lists) if item in found)
        known = [found[item][0] if item in found else min(s for s, _ in found.values()) for found in filled]
        mean = np.float32(sum(known)) * (np.float32(1) / np.float32(len(filled)))
        fused = np.float32(1 - fusion) * -score + np.float32(fusion) * mean if fusion else -score
        ranked.append((-fused, k, rank, item))
    return [(item, float(-fused), k) for fused, k, _, item in sorted(ranked)[:top_k]]


@given(st.data())
def test_merge_equals_its_definition(data: st.DataObject) -> None:
    B, K, n = (data.draw(st.integers(1, 4)) for _ in range(3))
    ids = data.draw(hnp.arrays(np.int64, (B, K, n), elements=st.integers(0, 8)))
    for found in ids.reshape(B * K, n):  # an index finds an item once
        found[[rank for rank in range(n) if found[rank] in found[:rank]]] = PADDING
    given = hnp.arrays(np.float32, (B, K, n), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0]))
    scores = -np.sort(-data.draw(given), axis=2)  # best first
    seen = data.draw(hnp.arrays(np.int64, (B, 3), elements=st.integers(0, 8)))
    top_k, fusion = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    merged = merge(ids, scores, top_k, seen, fusion)
    for b in range(B):
        got = list(
            zip(merged[b].item_ids.tolist(), merged[b].scores.tolist(), merged[b].interests.tolist(), strict=True)
        )
        assert got == _reference(ids[b], scores[b], top_k, set(seen[b].tolist()) - {PADDING}, fusion)


@given(st.data())
def test_longer_lists_do_not_change_the_result(data: st.DataObject) -> None:
    """Searches for all users of a batch return as many extra items as the longest history of the batch has."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    K, n, top_k = data.draw(st.integers(1, 4)), 12, 5
    ids = np.array([[rng.permutation(20)[:n] + 1 for _ in range(K)]])
    scores = -np.sort(-rng.integers(0, 30, (1, K, n)).astype(np.float32), axis=2)
    seen = rng.integers(1, 21, (1, 4))
    enough = top_k + 4
    (short,) = merge(ids[:, :, :enough], scores[:, :, :enough], top_k, seen, 0.5)
    (long,) = merge(ids, scores, top_k, seen, 0.5)
    assert short.item_ids.tolist() == long.item_ids.tolist()
    assert short.scores.tolist() == long.scores.tolist()


def test_an_item_that_all_interests_found_outranks_an_item_of_a_single_interest() -> None:
    ids = np.array([[[5, 7, 1], [7, 9, 2]]])
    scores = np.array([[[0.9, 0.8, 0.1], [0.8, 0.2, 0.1]]], dtype=np.float32)
    (by_maximum,) = merge(ids, scores, 3)
    (fused,) = merge(ids, scores, 3, fusion=0.5)
    assert by_maximum.item_ids.tolist() == [5, 7, 9]
    assert fused.item_ids.tolist() == [7, 5, 9]
    np.testing.assert_allclose(
        fused.scores, [0.8, 0.5 * 0.9 + 0.5 * (0.9 + 0.1) / 2, 0.5 * 0.2 + 0.5 * (0.1 + 0.2) / 2]
    )


def test_an_item_of_two_interests_counts_once_with_its_best_score() -> None:
    ids = np.array([[[5, 7], [7, 9]]])
    scores = np.array([[[0.9, 0.2], [0.8, 0.1]]], dtype=np.float32)
    (candidates,) = merge(ids, scores, 10)
    assert candidates.item_ids.tolist() == [5, 7, 9]
    assert candidates.interests.tolist() == [0, 1, 1]


def test_padding_and_missing_results_are_left_out() -> None:
    ids = np.array([[[5, 0, 0]]])
    scores = np.array([[[0.1, -np.inf, -np.inf]]], dtype=np.float32)
    (candidates,) = merge(ids, scores, 3, np.array([[0, 0]]))
    assert candidates.item_ids.tolist() == [5]


@pytest.mark.parametrize("score", [np.nan, np.inf, 3e38])
def test_no_list_holds_a_score_that_overflows(score: float) -> None:
    ids = np.array([[[9, 1, 2], [9, 1, 0]]])
    scores = np.array([[[score, 0.5, 0.25], [score, 0.5, -np.inf]]], np.float32)
    (found,) = merge(ids, scores, 3, fusion=0.5)
    assert found.item_ids.tolist() == [1, 2]
    assert np.isfinite(found.scores).all()


def test_many_excluded_items_are_left_out_like_few() -> None:
    rng = np.random.default_rng(3)
    ids = np.array([[rng.permutation(600)[:50] for _ in range(3)] for _ in range(4)])
    scores = -np.sort(-rng.standard_normal((4, 3, 50)).astype(np.float32), axis=2)
    exclude = np.array([rng.permutation(600)[:200] for _ in range(4)])
    wide = np.concatenate([exclude, np.zeros((4, 200), dtype=np.int64)], axis=1)
    for few, many in zip(merge(ids, scores, 20, exclude), merge(ids, scores, 20, wide), strict=True):
        np.testing.assert_array_equal(few.item_ids, many.item_ids)
        np.testing.assert_array_equal(few.scores, many.scores)
