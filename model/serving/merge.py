"""Merge the items that a user's interests recalled into one list, for a whole batch of users at once.

Evaluation and serving share this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model.arrays import FloatArray, FloatVector, IdArray, IdVector, IntVector, Mask
from model.serving.sort_keys import NONE, pack, positions_of, scores_of

#: Id of "no item": padding in histories, and in search results with fewer items than requested.
PADDING = 0
#: Sums of scores below it, one for each interest, are finite.
MAX_SCORE = np.float32(1e30)
#: Excluded items of a user from which sorting is faster than comparing with each, as measured with lists long enough.
_MANY_EXCLUDED = 128


class Candidates(NamedTuple):
    """Recalled items of one user, best first; `interests[i]` is the interest that recalled `item_ids[i]`.

    Shapes (n,) with n ≤ top-k; dtypes int64, float32 and int64.
    """

    item_ids: IdVector
    scores: FloatVector
    interests: IntVector


def merge(
    ids: IdArray, scores: FloatArray, top_k: int, exclude: IdArray | None = None, fusion: float = 0.0
) -> list[Candidates]:
    """Merge each user's K lists: every item once, by (1 - fusion) · maximum + fusion · mean of its scores.

    The maximum is that of the interests that found the item, the mean that of all interests whose list is not empty: an
    interest that did not find the item counts with the last score of its list, which is the item's upper bound there.
    Fusion 0 is CombMAX, 1 is CombSUM (Fox and Shaw 1994, "Combination of multiple searches"). An interest contributes
    its best `top_k` items that are not excluded, however long its list is. Ties go to the smaller interest, then to the
    smaller rank in its list, so that equal input gives equal output.

    Args:
        ids: (B, K, n) item ids found by each interest, best first, each at most once; `PADDING` is skipped.
        scores: (B, K, n) scores, higher = nearer; items whose score is beyond `MAX_SCORE`, or
            NaN, are skipped: their vectors were not made by the model.
        top_k: largest number of candidates for each user.
        exclude: (B, H) item ids to leave out for each user, padded with `PADDING`; None = none.
        fusion: 0 to 1.

    Returns:
        The candidates of each of the B users. The interest of an item is the one that gave its maximum.
    """
    B, K, n = ids.shape
    m = K * n
    usable = (ids != PADDING) & (np.abs(scores) < MAX_SCORE)
    if exclude is not None:
        usable &= ~_contains(exclude, ids.reshape(B, m)).reshape(B, K, n)
    usable &= np.cumsum(usable, axis=2, dtype=np.int32) <= top_k
    ranked = np.full(B * m, NONE)  # the key of each item, at the position of its maximum
    if usable.any():
        position, first = _by_item(np.where(usable, ids, PADDING).reshape(B, m))  # (E,), (G,)
        best = np.minimum.reduceat(pack(scores.ravel().take(position), position), first)
        if fusion:
            user, (last, share) = position.take(first) // m, _last_scores(scores, usable)
            # Each list that found an item adds the difference between the item's score and the list's last score to the
            # sum of all last scores. In float64, so that the order of summation does not matter.
            gain = np.add.reduceat((scores - last).ravel().take(position), first, dtype=np.float64).astype(np.float32)
            mean = (gain + last.sum(axis=(1, 2)).take(user)) * share.take(user)
            best = pack(np.float32(1 - fusion) * scores_of(best) + np.float32(fusion) * mean, positions_of(best))
        ranked[positions_of(best)] = best
    ranked = np.sort(ranked.reshape(B, m), axis=1)[:, :top_k]
    found = ranked != NONE
    ends = np.cumsum(found.sum(axis=1)).tolist()
    ranked = ranked[found]
    position = positions_of(ranked)
    merged, values, interests = ids.ravel().take(position), scores_of(ranked), position % m // n
    return [
        Candidates(merged[begin:end], values[begin:end], interests[begin:end])
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _contains(sets: IdArray, ids: IdArray) -> Mask:
    """Return whether ids[b, j] is among sets[b]: (B, m) bool."""
    if sets.shape[1] > _MANY_EXCLUDED:
        return np.stack([np.isin(row, members) for row, members in zip(ids, sets, strict=True)])
    found = np.zeros(ids.shape, dtype=bool)
    for column in sets.T:  # (B,), one comparison of the whole batch for each position of the history window
        found |= ids == column[:, None]
    return found


def _by_item(ids: IdArray) -> tuple[IntVector, IntVector]:
    """Group equal ids of each row, padding left out.

    Returns:
        positions: (E,) in the flattened (B, m), the members of a group adjacent; first: (G,) where each group begins.
    """
    B, m = ids.shape
    order = np.argsort(ids, axis=1)  # not stable, which would be slower; the order of equal ids does not matter
    order += np.arange(0, B * m, m)[:, None]
    ordered = ids.ravel().take(order.ravel())
    known = np.flatnonzero(ordered)  # PADDING is 0
    position, item = order.ravel().take(known), ordered.take(known)
    row = position // m
    new = np.ones(len(item), dtype=bool)
    new[1:] = (item[1:] != item[:-1]) | (row[1:] != row[:-1])
    return position, np.flatnonzero(new)


def _last_scores(scores: FloatArray, usable: Mask) -> tuple[FloatArray, FloatArray]:
    """Return each list's smallest usable score, (B, K, 1), 0 if none, and 1 / number of lists with one, (B,)."""
    last = np.where(usable, scores, np.float32(np.inf)).min(axis=2, keepdims=True)
    some = np.isfinite(last)
    share = np.float32(1) / np.maximum(some.sum(axis=(1, 2)), 1).astype(np.float32)
    return np.where(some, last, np.float32(0)), share
