"""Merging the candidates of a user's interests into one list, for a whole batch of users at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Id of "no item": padding in histories, and in search results that found fewer items than asked for.
PADDING = 0
#: Sorts behind every packed score.
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Candidates:
    """Recalled items of one user, best first; `interests[i]` is the interest that recalled `item_ids[i]`.

    Shapes (n,), n ≤ top-k; dtypes int64, float32 and int64.
    """

    item_ids: Ids
    scores: Scores
    interests: npt.NDArray[np.int64]


def merge(ids: Ids, scores: Scores, top_k: int, exclude: Ids | None = None) -> list[Candidates]:
    """Merge by best score: an item found by several interests counts once, with its best score.

    Ties go to the smaller interest, then to the place in its list, so that equal input gives equal output.

    Args:
        ids: (B, K, n) item ids found by each interest; `PADDING` is skipped.
        scores: (B, K, n) scores, higher = nearer; no NaN.
        top_k: most candidates for each user.
        exclude: (B, H) item ids to leave out for each user, padded with `PADDING`; None = none.

    Returns:
        B lists of candidates.
    """
    B, K, n = ids.shape
    ids, scores = ids.reshape(B, K * n), scores.reshape(B, K * n)
    usable = ids != PADDING
    if exclude is not None:
        usable &= ~_contains(exclude, ids)
    # An item is found at most once by each interest, so the best K · top_k places hold top_k different items.
    places, usable = _best_first(scores, usable, K * top_k)
    ids, scores = np.take_along_axis(ids, places, axis=1), np.take_along_axis(scores, places, axis=1)
    usable &= _first_of_each(ids)
    usable &= np.cumsum(usable, axis=1) <= top_k
    merged_ids, merged_scores, interests = ids[usable], scores[usable], places[usable] // n
    ends = np.cumsum(usable.sum(axis=1)).tolist()
    return [
        Candidates(merged_ids[begin:end], merged_scores[begin:end], interests[begin:end])
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _best_first(scores: Scores, usable: Mask, most: int) -> tuple[Places, Mask]:
    """(B, m) the places of the best scores, at most `most`, and whether they are usable: those that are not come last.

    Score and place are packed into one integer, because NumPy sorts integers several times faster than it finds an
    order by two keys.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # ordered like the numbers
    packed = (~rising).astype(np.int64) << 32 | np.arange(scores.shape[1])
    packed[~usable] = _LAST
    packed.sort(axis=1)
    packed = packed[:, :most]
    found = packed != _LAST
    return np.where(found, packed & 0xFFFFFFFF, 0), found


def _contains(sets: Ids, ids: Ids) -> Mask:
    """(B, m) whether ids[b, j] is among sets[b]."""
    found = np.zeros(ids.shape, dtype=bool)
    for column in sets.T:  # (B,), one comparison of the whole batch for each place of the history window
        found |= ids == column[:, None]
    return found


def _first_of_each(ids: Ids) -> Mask:
    """(B, m) True where an id stands for the first time in its row."""
    by_id = np.argsort(ids, axis=1)  # not stable, which would be slower: the first of each group is looked for below
    ordered = np.take_along_axis(ids, by_id, axis=1)
    new = np.ones(ids.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    groups = np.flatnonzero(new)  # where each group of equal ids begins; every row begins one
    first = np.zeros(ids.shape, dtype=bool)
    if len(groups):
        first[groups // ids.shape[1], np.minimum.reduceat(by_id.ravel(), groups)] = True
    return first
