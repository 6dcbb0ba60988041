"""Merging the candidates of a user's interests into one list, for a whole batch of users at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

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


def merge(ids: Ids, scores: Scores, top_k: int, exclude: Ids | None = None) -> list[Candidates]:
    """Merge by best score: an item found by several interests counts once, with its best score.

    Ties go to the smaller item id, then to the smaller interest, so that equal input gives equal output.

    Args:
        ids: (B, K, n) item ids found by each interest; `PADDING` is skipped.
        scores: (B, K, n) scores, higher = nearer.
        top_k: most candidates for each user.
        exclude: (B, H) item ids to leave out for each user, padded with `PADDING`; None = none.

    Returns:
        B lists of candidates.
    """
    B, K, n = ids.shape
    ids, scores = ids.reshape(B, K * n), scores.reshape(B, K * n)
    interests = np.broadcast_to(np.repeat(np.arange(K), n), (B, K * n))
    usable = ids != PADDING
    if exclude is not None:
        usable &= ~_contains(exclude, ids)
    # Unusable places sort last. lexsort is stable: its last key decides first, the interest's order breaks ties.
    order = np.lexsort((ids, np.where(usable, -scores, np.inf)), axis=1)
    ids, scores, interests, usable = (_take(a, order) for a in (ids, scores, interests, usable))
    usable &= _first_of_each(ids)
    merged = []
    for b in range(B):
        best = np.flatnonzero(usable[b])[:top_k]
        merged.append(Candidates(ids[b, best], scores[b, best], interests[b, best]))
    return merged


def _take(values: npt.NDArray[Any], order: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    return np.take_along_axis(values, order, axis=1)


def _contains(sets: Ids, ids: Ids) -> npt.NDArray[np.bool_]:
    """(B, m) whether ids[b, j] is among sets[b]."""
    found = np.zeros(ids.shape, dtype=bool)
    for column in sets.T:  # (B,), one comparison of the whole batch for each place of the history window
        found |= ids == column[:, None]
    return found


def _first_of_each(ids: Ids) -> npt.NDArray[np.bool_]:
    """(B, m) True where an id stands for the first time in its row."""
    by_id = np.argsort(ids, axis=1, kind="stable")
    ordered = _take(ids, by_id)
    new = np.ones(ids.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, by_id, new, axis=1)
    return first
