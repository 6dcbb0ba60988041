"""Merging the items that a user's interests have found into one list, for a whole batch of users at once.

Measuring a model and serving it share this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.keys import NONE, keys, places_of, scores_of

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Id of "no item": padding in histories, and in search results that found fewer items than asked for.
PADDING = 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """Recalled items of one user, best first; `interests[i]` is the interest that recalled `item_ids[i]`.

    Shapes (n,), n ≤ top-k; dtypes int64, float32 and int64.
    """

    item_ids: Ids
    scores: Scores
    interests: npt.NDArray[np.int64]


def merge(ids: Ids, scores: Scores, top_k: int, exclude: Ids | None = None, fusion: float = 0.0) -> list[Candidates]:
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
    usable = ids != PADDING
    if exclude is not None:
        usable &= ~_contains(exclude, ids.reshape(B, K * n)).reshape(B, K, n)
    usable &= np.cumsum(usable, axis=2) <= top_k
    ranked = np.full((B, K * n), NONE)  # at the place of an item's maximum, its key
    if usable.any():
        user, place, new = _by_item(np.where(usable, ids, PADDING).reshape(B, K * n))  # (E,) each
        score = scores.ravel()[user * (K * n) + place]
        first = np.flatnonzero(new)  # (G,), where each item of a user begins
        best = np.minimum.reduceat(keys(score, place), first)
        if fusion:
            lists, share = _last_scores(scores, usable)
            lists = lists[:, user[first]]  # (K, G)
            lists[place // n, np.cumsum(new) - 1] = score
            mean = lists.sum(axis=0) * share[user[first]]
            best = keys(np.float32(1 - fusion) * scores_of(best) + np.float32(fusion) * mean, places_of(best))
        ranked[user[first], places_of(best)] = best
        ranked.sort(axis=1)
    ranked = ranked[:, :top_k]
    found = ranked != NONE
    users, places = np.nonzero(found)[0], places_of(ranked[found])
    merged, values, interests = ids.reshape(B, K * n)[users, places], scores_of(ranked[found]), places // max(n, 1)
    ends = np.cumsum(found.sum(axis=1)).tolist()
    return [
        Candidates(merged[begin:end], values[begin:end], interests[begin:end])
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _contains(sets: Ids, ids: Ids) -> Mask:
    """(B, m) whether ids[b, j] is among sets[b]."""
    found = np.zeros(ids.shape, dtype=bool)
    for column in sets.T:  # (B,), one comparison of the whole batch for each place of the history window
        found |= ids == column[:, None]
    return found


def _by_item(ids: Ids) -> tuple[Ids, Ids, Mask]:
    """Row and column of each id of (B, m) that is no padding, equals of a row together, and whether another begins."""
    order = np.argsort(ids, axis=1)  # not stable, which would be slower: nobody minds the order of equals
    ordered = ids.ravel()[order + ids.shape[1] * np.arange(len(ids))[:, None]]
    new = np.ones(ids.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    known = ordered != PADDING
    return np.repeat(np.arange(len(ids)), known.sum(axis=1)), order[known], new[known]


def _last_scores(scores: Scores, usable: Mask) -> tuple[Scores, Scores]:
    """(K, B) the smallest usable score of each list, 0 where it has none; (B,) one through the number that have."""
    last = np.where(usable, scores, np.float32(np.inf)).min(axis=2).T
    some = np.isfinite(last)
    return np.where(some, last, np.float32(0)), np.float32(1) / np.maximum(some.sum(axis=0), 1).astype(np.float32)
