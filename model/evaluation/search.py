"""Exact search for the best items of many users, by blocked matrix products, for catalogues of any size.

Two threads with one core each are faster than one product on two cores: the loops over the scores are parallel, too,
and on a busy machine the threads of a product do not wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from model.arrays import FloatArray, IdMatrix, IdVector, IntVector
from model.data.clicks import Clicks
from model.serving.merge import PADDING, merge
from model.serving.sort_keys import NONE, Keys, pack, positions_of, scores_of

#: Users and items of a tile: with four interests its scores take 2 MB, and stay in the processor's cache.
TILE_USERS, TILE_ITEMS = 64, 2048
#: Row and interest of "no item", which fill lists that are shorter than n.
NO_ROW = -1


class TopItems(NamedTuple):
    """The best items of B users, best first, filled up with `NO_ROW`.

    Attributes:
        rows: (B, n) int64, rows of the items. interests: (B, n) int64, the interest that recalled each.
        scores: (B, n) float32, the scores that the items are ordered by; NaN for `NO_ROW`.
    """

    rows: IdMatrix
    interests: IdMatrix
    scores: FloatArray

    @classmethod
    def empty(cls, users: int, n: int) -> TopItems:
        shape = users, n
        return cls(np.full(shape, NO_ROW), np.full(shape, NO_ROW), np.full(shape, np.nan, np.float32))


class SearchResult(NamedTuple):
    """The best items, with seen items kept in the lists and with seen items filtered out."""

    kept: TopItems
    filtered: TopItems


class _SeenPairs(NamedTuple):
    """P pairs of a user of the block and the row of an item that the user has seen, ascending by row; (P,) each."""

    user: IntVector
    row: IdVector


def exact_top(interests: FloatArray, vectors: FloatArray, n: int, fusion: float) -> IdMatrix:
    """Return the rows of `vectors`, (B, n) int64, that `search` finds if no items were seen."""
    return search(interests, vectors, n, fusion).kept.rows


def search(
    interests: FloatArray,
    vectors: FloatArray,
    n: int,
    fusion: float,
    seen: Clicks | None = None,
    report_progress: Callable[[int], object] = lambda _users: None,
) -> SearchResult:
    """Find the n items with the largest inner product for each interest, and merge them (`model.serving.merge`).

    Equal scores of an interest are in the order of the rows. Besides the arguments and the result, this takes 5 MB of
    memory for each core, whatever B and N.

    Args:
        interests: (B, K, D) float32; vectors: (N, D) float32; fusion: 0 to 1.
        seen: B users with the rows of the items that they have seen; None = no items were seen.
        report_progress: called with the number of users done since its last call.
    """
    B = len(interests)
    tops = SearchResult(TopItems.empty(B, n), TopItems.empty(B, n))

    def work(begin: int) -> int:
        users = slice(begin, min(begin + TILE_USERS, B))
        pairs = _seen_pairs(seen, users.start, users.stop, len(vectors))
        for top, lists in zip(tops, _search_block(interests[users], vectors, n, pairs), strict=True):
            _fill(top, begin, lists, fusion)
        return users.stop - users.start

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        for done in threads.map(work, range(0, B, TILE_USERS)):
            report_progress(done)
    return tops


def _fill(top: TopItems, begin: int, lists: Keys, fusion: float) -> None:
    """Merge the keys of b users, (b, K, n), into the rows of `top` from `begin`."""
    ids = np.where(lists == NONE, PADDING, positions_of(lists) + 1)  # rows from 1, because 0 is padding
    for user, found in enumerate(merge(ids, scores_of(lists), lists.shape[2], fusion=fusion), begin):
        top.rows[user, : len(found.item_ids)] = found.item_ids - 1
        top.interests[user, : len(found.item_ids)] = found.interests
        top.scores[user, : len(found.item_ids)] = found.scores


def _search_block(interests: FloatArray, vectors: FloatArray, n: int, seen: _SeenPairs) -> tuple[Keys, Keys]:
    """Return keys of each interest's best items, (b, K, n), with and without seen items.

    The catalogue is read once. Only scores above an interest's n-th best so far are considered further; scores of seen
    items are set aside, and merged at the end.
    """
    b, K, D = interests.shape
    queries = interests.reshape(b * K, D)
    buffer, aside = np.empty(b * K * TILE_ITEMS, np.float32), np.empty((len(seen.row), K), np.float32)
    best, bound = np.full((b * K, n), NONE), np.full((b * K, 1), -np.inf, np.float32)
    for begin in range(0, len(vectors), TILE_ITEMS):
        part = vectors[begin : begin + TILE_ITEMS]  # (t, D)
        t = len(part)
        scores = np.matmul(queries, part.T, out=buffer[: b * K * t].reshape(b * K, t))
        here = slice(*np.searchsorted(seen.row, [begin, begin + t]))
        seen_here = seen.user[here], slice(None), seen.row[here] - begin
        of_users = scores.reshape(b, K, t)
        aside[here] = of_users[seen_here]
        of_users[seen_here] = -np.inf
        query, column = np.divmod(np.flatnonzero(scores > bound), t)
        if len(query):
            best = _best(best, query, pack(scores[query, column], column + begin))
            bound = scores_of(best[:, -1:])
    order = np.argsort(seen.user, kind="stable")
    query = (seen.user[order, None] * K + np.arange(K)).ravel()
    by_query = np.argsort(query, kind="stable")
    with_seen = _best(best, query[by_query], pack(aside[order], seen.row[order, None]).ravel()[by_query])
    return with_seen.reshape(b, K, n), best.reshape(b, K, n)


def _seen_pairs(seen: Clicks | None, begin: int, end: int, items: int) -> _SeenPairs:
    """Return the items that the users from `begin` to before `end` have seen, each pair once."""
    if seen is None:
        return _SeenPairs(np.empty(0, np.int64), np.empty(0, np.int64))
    rows = seen.items[seen.offsets[begin] : seen.offsets[end]]
    user = np.repeat(np.arange(end - begin), seen.lengths[begin:end])
    row, user = np.divmod(np.unique(rows * (end - begin) + user), end - begin)
    assert not len(row) or 0 <= row[0] <= row[-1] < items
    return _SeenPairs(user, row)


def _best(best: Keys, query: IdVector, found: Keys) -> Keys:
    """Return each query's n smallest keys, (q, n), of `best`, (q, n), and `found`, (f,); `query`, (f,), ascends."""
    q, n = best.shape
    count = np.bincount(query, minlength=q)
    column = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    pool = np.full((q, n + count.max(initial=0)), NONE)
    pool[:, :n] = best
    pool[query, n + column] = found
    pool.sort(axis=1)
    return pool[:, :n]
