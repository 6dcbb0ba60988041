"""Merging the interests' candidates."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streams.merge import PADDING, merge


def _reference(ids: np.ndarray, scores: np.ndarray, top_k: int, seen: set[int]) -> list[tuple[int, float, int]]:
    """The definition, one user at a time, with dicts."""
    best: dict[int, tuple[float, int, int]] = {}  # item → score, interest, place in its list
    for k in range(ids.shape[0]):
        for place, (item, score) in enumerate(zip(ids[k].tolist(), scores[k].tolist(), strict=True)):
            if item != PADDING and item not in seen and (item not in best or score > best[item][0]):
                best[item] = (score, k, place)
    ranked = sorted((-score, k, place, item) for item, (score, k, place) in best.items())
    return [(item, -score, k) for score, k, _, item in ranked[:top_k]]


@given(st.data())
def test_merge_equals_its_definition(data: st.DataObject) -> None:
    B, K, n = (data.draw(st.integers(1, 4)) for _ in range(3))
    ids = data.draw(hnp.arrays(np.int64, (B, K, n), elements=st.integers(0, 8)))
    for found in ids.reshape(B * K, n):  # an index finds an item once
        found[[place for place in range(n) if found[place] in found[:place]]] = PADDING
    scores = data.draw(
        hnp.arrays(np.float32, (B, K, n), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0]))
    )
    seen = data.draw(hnp.arrays(np.int64, (B, 3), elements=st.integers(0, 8)))
    top_k = data.draw(st.integers(1, 12))
    merged = merge(ids, scores, top_k, seen)
    for b in range(B):
        got = list(
            zip(merged[b].item_ids.tolist(), merged[b].scores.tolist(), merged[b].interests.tolist(), strict=True)
        )
        assert got == _reference(ids[b], scores[b], top_k, set(seen[b].tolist()) - {PADDING})


def test_an_item_of_two_interests_counts_once_with_its_best_score() -> None:
    ids = np.array([[[5, 7], [7, 9]]])
    scores = np.array([[[0.9, 0.2], [0.8, 0.1]]], dtype=np.float32)
    (candidates,) = merge(ids, scores, 10)
    assert candidates.item_ids.tolist() == [5, 7, 9]
    assert candidates.interests.tolist() == [0, 1, 1]


def test_padding_and_missing_results_never_come_out() -> None:
    ids = np.array([[[5, 0, 0]]])
    scores = np.array([[[0.1, -np.inf, -np.inf]]], dtype=np.float32)
    (candidates,) = merge(ids, scores, 3, np.array([[0, 0]]))
    assert candidates.item_ids.tolist() == [5]
