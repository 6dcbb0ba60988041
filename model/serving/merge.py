"""Merging the items that a user's interests have found into one list, for a whole batch of users at once.

Measuring a model and serving it share this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.arrays import FloatArray, IdArray, Mask
from model.serving.sort_keys import NONE, keys, places_of, scores_of

#: Id of "no item": padding in histories, and in search results that found fewer items than asked for.
PADDING = 0


class Candidates(NamedTuple):
    """Recalled items of one user, best first; `interests[i]` is the interest that recalled `item_ids[i]`.

    Shapes (n,), n ≤ top-k; dtypes int64, float32 and int64.
    """

    item_ids: IdArray
    scores: FloatArray
    interests: npt.NDArray[np.int64]


def merge(
    ids: IdArray, scores: FloatArray, top_k: int, exclude: IdArray | None = None, fusion: float = 0.0
) -> list[Candidates]:
    """Make one list of a user's K lists: every item once, by (1 - fusion) · maximum + fusion · mean of its scores.

    The maximum is over the interests that found the item, the mean over all whose list is not empty: one that did not
    find it counts with the last score of its list, which the item does not exceed there. Fusion 0 is CombMAX, 1 is
    CombSUM (Fox and Shaw 1994, "Combination of multiple searches"). An interest brings its best `top_k` items that are
    not excluded, however long its list is. Ties go to the smaller interest, then to the place in its list, so that
    equal input gives equal output.

    Args:
        ids: (B, K, n) item ids found by each interest, best first, each at most once; `PADDING` is skipped.
        scores: (B, K, n) scores, higher = nearer, finite but for padding.
        top_k: most candidates for each user.
        exclude: (B, H) item ids to leave out for each user, padded with `PADDING`; None = none.
        fusion: 0 to 1.

    Returns:
        B lists of candidates. The interest of an item is the one that gave its maximum.
    """
    B, K, n = ids.shape
    m = K * n
    usable = ids != PADDING
    if exclude is not None:
        usable &= ~_contains(exclude, ids.reshape(B, m)).reshape(B, K, n)
    usable &= np.cumsum(usable, axis=2, dtype=np.int32) <= top_k
    ranked = np.full(B * m, NONE)  # at the place of an item's maximum, its key
    if usable.any():
        place, first = _by_item(np.where(usable, ids, PADDING).reshape(B, m))  # (E,), (G,)
        best = np.minimum.reduceat(keys(scores.ravel().take(place), place), first)
        if fusion:
            user, (last, share) = place.take(first) // m, _last_scores(scores, usable)
            # What the lists that found it add to the last scores of all. In float64, where its order does not matter.
            gain = np.add.reduceat((scores - last).ravel().take(place), first, dtype=np.float64).astype(np.float32)
            mean = (gain + last.sum(axis=(1, 2)).take(user)) * share.take(user)
            best = keys(np.float32(1 - fusion) * scores_of(best) + np.float32(fusion) * mean, places_of(best))
        ranked[places_of(best)] = best
    ranked = np.sort(ranked.reshape(B, m), axis=1)[:, :top_k]
    found = ranked != NONE
    ends = np.cumsum(found.sum(axis=1)).tolist()
    ranked = ranked[found]
    place = places_of(ranked)
    merged, values, interests = ids.ravel().take(place), scores_of(ranked), place % m // n
    return [
        Candidates(merged[begin:end], values[begin:end], interests[begin:end])
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _contains(sets: IdArray, ids: IdArray) -> Mask:
    """(B, m) whether ids[b, j] is among sets[b]."""
    found = np.zeros(ids.shape, dtype=bool)
    for column in sets.T:  # (B,), one comparison of the whole batch for each place of the history window
        found |= ids == column[:, None]
    return found


def _by_item(ids: IdArray) -> tuple[IdArray, IdArray]:
    """Places in the flattened (B, m) of ids that are no padding, equals of a row together; where each group begins."""
    B, m = ids.shape
    order = np.argsort(ids, axis=1)  # not stable, which would be slower: nobody minds the order of equals
    order += np.arange(0, B * m, m)[:, None]
    ordered = ids.ravel().take(order.ravel())
    known = np.flatnonzero(ordered)  # PADDING is 0
    place, item = order.ravel().take(known), ordered.take(known)
    row = place // m
    new = np.ones(len(item), dtype=bool)
    new[1:] = (item[1:] != item[:-1]) | (row[1:] != row[:-1])
    return place, np.flatnonzero(new)


def _last_scores(scores: FloatArray, usable: Mask) -> tuple[FloatArray, FloatArray]:
    """(B, K, 1) the smallest usable score of each list, 0 where it has none; (B,) one through the number that have."""
    last = np.where(usable, scores, np.float32(np.inf)).min(axis=2, keepdims=True)
    some = np.isfinite(last)
    share = np.float32(1) / np.maximum(some.sum(axis=(1, 2)), 1).astype(np.float32)
    return np.where(some, last, np.float32(0)), share
