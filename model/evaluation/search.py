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
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from model.data import Clicks

FloatArray = npt.NDArray[np.float32]
IdVector = npt.NDArray[np.int64]
IdMatrix = npt.NDArray[np.int64]

#: Users and items of a tile: with four interests its scores take 2 MB, so that they stay in the processor's cache.
USERS, ITEMS = 64, 2048
#: Row of "no item": the places of a list beyond the items there are.
NO_ROW = -1
#: Key of "no item": sorts behind every other.
_NONE = np.iinfo(np.int64).max


class Tops(NamedTuple):
    """Rows of the best items, (B, n) int64, best first, filled up with `NO_ROW`; ties go to the smaller row.

    Attributes:
        kept: of all items. unseen: without those that the user has seen.
    """

    kept: IdMatrix
    unseen: IdMatrix


class _Pairs(NamedTuple):
    """Pairs of a user of the block and an item's row, in the order of the rows."""

    user: IdVector
    row: IdVector


def exact_top(interests: FloatArray, vectors: FloatArray, n: int) -> IdMatrix:
    """`search` without seen items: (B, n) int64, rows of `vectors`."""
    return search(interests, vectors, n).kept


def search(
    interests: FloatArray,
    vectors: FloatArray,
    n: int,
    seen: Clicks | None = None,
    report: Callable[[int], object] = lambda _users: None,
) -> Tops:
    """Best items by the largest inner product with any interest: what merging exact searches of each interest gives.

    Memory beside the arguments and the result: 4 MB for each core, whatever B and N.

    Args:
        interests: (B, K, D) float32; vectors: (N, D) float32.
        seen: B users with the rows of the items that they have seen; None = nobody has seen any.
        report: is told the number of users done since its last call.
    """
    B = len(interests)
    tops = Tops(np.empty((B, n), np.int64), np.empty((B, n), np.int64))

    def work(begin: int) -> int:
        users = slice(begin, min(begin + USERS, B))
        pairs = _pairs(seen, users.start, users.stop, len(vectors))
        tops.kept[users], tops.unseen[users] = _search_block(interests[users], vectors, n, pairs)
        return users.stop - users.start

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        for done in threads.map(work, range(0, B, USERS)):
            report(done)
    return tops


def interests_of(interests: FloatArray, vectors: FloatArray, top: IdMatrix) -> IdMatrix:
    """Which interest brings each item of `top`, (B, n) rows of `vectors`: the best one; `NO_ROW` where no item is."""
    scores = vectors[top] @ interests.transpose(0, 2, 1)  # (B, n, K)
    return np.where(top == NO_ROW, NO_ROW, scores.argmax(axis=2))


def _search_block(interests: FloatArray, vectors: FloatArray, n: int, seen: _Pairs) -> Tops:
    """One pass over the catalogue. Only scores above a user's n-th best so far are looked at again, and seen items are
    taken out of the running: their scores are put aside, and join the others at the end."""
    b, K, D = interests.shape
    queries = interests.transpose(1, 0, 2).reshape(K * b, D)
    buffer, aside = np.empty(K * b * ITEMS, np.float32), np.empty(len(seen.row), np.float32)
    best, bound = np.full((b, n), _NONE), np.full((b, 1), -np.inf, np.float32)
    for begin in range(0, len(vectors), ITEMS):
        part = vectors[begin : begin + ITEMS]  # (t, D)
        t = len(part)
        products = np.matmul(queries, part.T, out=buffer[: K * b * t].reshape(K * b, t)).reshape(K, b, t)
        scores = products[0]
        for k in range(1, K):
            np.maximum(scores, products[k], out=scores)  # (b, t)
        here = slice(*np.searchsorted(seen.row, [begin, begin + t]))
        place = seen.user[here], seen.row[here] - begin
        aside[here] = scores[place]
        scores[place] = -np.inf
        user, column = np.divmod(np.flatnonzero(scores > bound), t)
        if len(user):
            best = _merge(best, user, _keys(scores[user, column], column + begin))
            bound = _bounds(best[:, -1:])
    order = np.argsort(seen.user, kind="stable")
    return Tops(_rows(_merge(best, seen.user[order], _keys(aside, seen.row)[order])), _rows(best))


def _pairs(seen: Clicks | None, begin: int, end: int, items: int) -> _Pairs:
    """What the users from `begin` to before `end`, counted from 0, have seen; each pair once."""
    if seen is None:
        return _Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    rows = seen.items[seen.offsets[begin] : seen.offsets[end]]
    user = np.repeat(np.arange(end - begin), seen.lengths[begin:end])
    row, user = np.divmod(np.unique(rows * (end - begin) + user), end - begin)
    assert not len(row) or 0 <= row[0] <= row[-1] < items
    return _Pairs(user, row)


# A key is one int64 for score and row: the smaller, the better, and equal scores go by row. So one sort does it all.


def _keys(scores: FloatArray, rows: IdVector) -> IdVector:
    """The complement of the score's bits, in the order of the numbers, above 32 bits of the row."""
    bits = (scores + np.float32(0)).view(np.int32)  # + 0: no negative zero
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # negative floats count down
    return np.asarray((~ordered).astype(np.int64) << 32 | rows)


def _rows(keys: IdMatrix) -> IdMatrix:
    return np.where(keys == _NONE, NO_ROW, keys & 0xFFFFFFFF)


def _bounds(keys: IdMatrix) -> FloatArray:
    """Scores of keys; -inf for "no item"."""
    ordered = ~(keys >> 32).astype(np.int32)
    scores: FloatArray = (ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    scores[keys == _NONE] = -np.inf
    return scores


def _merge(best: IdMatrix, user: IdVector, keys: IdVector) -> IdMatrix:
    """(b, n), the smallest of each row of `best` and the `keys` of that user; `user` ascends."""
    b, n = best.shape
    count = np.bincount(user, minlength=b)
    place = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    pool = np.full((b, n + count.max(initial=0)), _NONE)
    pool[:, :n] = best
    pool[user, n + place] = keys
    pool.sort(axis=1)
    return pool[:, :n]
