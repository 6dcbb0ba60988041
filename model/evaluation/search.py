"""Exact search for the best items of many users: blocked matrix products, whatever the catalogue's size.

Two threads of one core each outdo one product on two cores: the passes over the scores run side by side, too, and on a
busy machine the threads of a product do not wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from model.arrays import FloatArray, IdMatrix, IdVector
from model.data.clicks import Clicks
from model.serving.merge import PADDING, merge
from model.serving.sort_keys import NONE, Keys, keys, places_of, scores_of

#: Users and items of a tile: with four interests its scores take 2 MB, so that they stay in the processor's cache.
USERS, ITEMS = 64, 2048
#: Row of "no item", and its interest: the places of a list beyond the items there are.
NO_ROW = -1


class Top(NamedTuple):
    """The best items of B users, best first, filled up with `NO_ROW`.

    Attributes:
        rows: (B, n) int64 of the items. interests: (B, n) int64 that brought them.
    """

    rows: IdMatrix
    interests: IdMatrix


class Tops(NamedTuple):
    """Attributes: kept: of all items. unseen: without those that the user has seen."""

    kept: Top
    unseen: Top


class _Pairs(NamedTuple):
    """Pairs of a user of the block and an item's row, in the order of the rows."""

    user: IdVector
    row: IdVector


def exact_top(interests: FloatArray, vectors: FloatArray, n: int, fusion: float) -> IdMatrix:
    """`search` without seen items: (B, n) int64, rows of `vectors`."""
    return search(interests, vectors, n, fusion).kept.rows


def search(
    interests: FloatArray,
    vectors: FloatArray,
    n: int,
    fusion: float,
    seen: Clicks | None = None,
    report: Callable[[int], object] = lambda _users: None,
) -> Tops:
    """What merging (`model.serving.merge`) the n items of the largest inner product with each interest gives.

    An interest's equal scores are in the order of the rows. Memory beside the arguments and the result: 5 MB for each
    core, whatever B and N.

    Args:
        interests: (B, K, D) float32; vectors: (N, D) float32; fusion: 0 to 1.
        seen: B users with the rows of the items that they have seen; None = nobody has seen any.
        report: is told the number of users done since its last call.
    """
    B = len(interests)
    tops = Tops(*(Top(np.full((B, n), NO_ROW), np.full((B, n), NO_ROW)) for _ in Tops._fields))

    def work(begin: int) -> int:
        users = slice(begin, min(begin + USERS, B))
        pairs = _pairs(seen, users.start, users.stop, len(vectors))
        for top, lists in zip(tops, _search_block(interests[users], vectors, n, pairs), strict=True):
            _fill(top, begin, lists, fusion)
        return users.stop - users.start

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        for done in threads.map(work, range(0, B, USERS)):
            report(done)
    return tops


def _fill(top: Top, begin: int, lists: Keys, fusion: float) -> None:
    """Merges (b, K, n) keys into the places from `begin` on."""
    ids = np.where(lists == NONE, PADDING, places_of(lists) + 1)  # rows from 1: 0 is no item
    for user, found in enumerate(merge(ids, scores_of(lists), lists.shape[2], fusion=fusion), begin):
        top.rows[user, : len(found.item_ids)] = found.item_ids - 1
        top.interests[user, : len(found.item_ids)] = found.interests


def _search_block(interests: FloatArray, vectors: FloatArray, n: int, seen: _Pairs) -> tuple[Keys, Keys]:
    """One pass over the catalogue: (b, K, n) keys of the best items of each interest, all and unseen ones.

    Only scores above an interest's n-th best so far are looked at again, and seen items are taken out of the running:
    their scores are put aside, and join the others at the end.
    """
    b, K, D = interests.shape
    queries = interests.reshape(b * K, D)
    buffer, aside = np.empty(b * K * ITEMS, np.float32), np.empty((len(seen.row), K), np.float32)
    best, bound = np.full((b * K, n), NONE), np.full((b * K, 1), -np.inf, np.float32)
    for begin in range(0, len(vectors), ITEMS):
        part = vectors[begin : begin + ITEMS]  # (t, D)
        t = len(part)
        scores = np.matmul(queries, part.T, out=buffer[: b * K * t].reshape(b * K, t))
        here = slice(*np.searchsorted(seen.row, [begin, begin + t]))
        place = seen.user[here], slice(None), seen.row[here] - begin
        of_users = scores.reshape(b, K, t)
        aside[here] = of_users[place]
        of_users[place] = -np.inf
        query, column = np.divmod(np.flatnonzero(scores > bound), t)
        if len(query):
            best = _best(best, query, keys(scores[query, column], column + begin))
            bound = scores_of(best[:, -1:])
    order = np.argsort(seen.user, kind="stable")
    query = (seen.user[order, None] * K + np.arange(K)).ravel()
    by_query = np.argsort(query, kind="stable")
    all_of_them = _best(best, query[by_query], keys(aside[order], seen.row[order, None]).ravel()[by_query])
    return all_of_them.reshape(b, K, n), best.reshape(b, K, n)


def _pairs(seen: Clicks | None, begin: int, end: int, items: int) -> _Pairs:
    """What the users from `begin` to before `end`, counted from 0, have seen; each pair once."""
    if seen is None:
        return _Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    rows = seen.items[seen.offsets[begin] : seen.offsets[end]]
    user = np.repeat(np.arange(end - begin), seen.lengths[begin:end])
    row, user = np.divmod(np.unique(rows * (end - begin) + user), end - begin)
    assert not len(row) or 0 <= row[0] <= row[-1] < items
    return _Pairs(user, row)


def _best(best: Keys, query: IdVector, found: Keys) -> Keys:
    """(q, n), the smallest of each row of `best` and the keys `found` of that query; `query` ascends."""
    q, n = best.shape
    count = np.bincount(query, minlength=q)
    place = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    pool = np.full((q, n + count.max(initial=0)), NONE)
    pool[:, :n] = best
    pool[query, n + place] = found
    pool.sort(axis=1)
    return pool[:, :n]
