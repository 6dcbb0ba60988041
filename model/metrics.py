"""Exact recall and its yardsticks, in NumPy: the protocol of ComiRec, with NDCG normalised by min(n, targets)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.data import Clicks

FloatArray = npt.NDArray[np.float32]
IdMatrix = npt.NDArray[np.int64]

#: Bytes of scores that exact search holds at once.
SEARCH_MEMORY = 256 * 2**20


def exact_top(interests: FloatArray, vectors: FloatArray, n: int) -> IdMatrix:
    """Best items by the largest inner product with any interest: what merging exact searches of each interest gives.

    Args:
        interests: (B, K, D) float32; vectors: (N, D) float32; n: at most N.

    Returns:
        (B, n) int64, rows of `vectors`, best first.
    """
    B, K, _ = interests.shape
    top = np.empty((B, n), np.int64)
    chunk = max(1, SEARCH_MEMORY // (8 * len(vectors)))  # two float32 scores of every item at once
    for begin in range(0, B, chunk):
        part = interests[begin : begin + chunk]  # (b, K, D)
        scores = part[:, 0] @ vectors.T  # (b, N)
        for k in range(1, K):
            np.maximum(scores, part[:, k] @ vectors.T, out=scores)
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        top[begin : begin + chunk] = np.take_along_axis(best, order, axis=1)
    return top


def quality(top: IdMatrix, targets: Clicks) -> dict[str, float]:
    """Mean over users of recall, hit rate and NDCG at n, as fractions.

    recall = found / targets; hit rate = 1 with anything found; NDCG = Σ 1/log2(place + 1) over what was found, places
    from 1, divided by its largest possible value, which has min(n, targets) terms. Targets clicked twice count once.

    Args:
        top: (B, n), recommended items, best first; targets: B users with at least one target each, same numbering.
    """
    B, n = top.shape
    _, index = np.unique(np.concatenate([top.ravel(), targets.items]), return_inverse=True)
    size = len(index) + 1
    user = np.repeat(np.arange(B), targets.lengths)
    wanted = np.unique(user * size + index[B * n :])  # one number for each pair of user and item
    hits = np.isin(np.arange(B)[:, None] * size + index[: B * n].reshape(B, n), wanted)  # (B, n)
    count = np.bincount(wanted // size, minlength=B)
    gains = 1 / np.log2(np.arange(2, n + 2))
    ideal = np.cumsum(gains)[np.minimum(n, count) - 1]
    return {
        f"recall@{n}": float(np.mean(hits.sum(axis=1) / count)),
        f"hit_rate@{n}": float(np.mean(hits.any(axis=1))),
        f"ndcg@{n}": float(np.mean(hits @ gains / ideal)),
    }


def interest_cosine(interests: FloatArray) -> float:
    """Mean cosine of two different interests of the same user, (B, K, D); 1 = all the same, 0 for K = 1."""
    B, K, _ = interests.shape
    if K == 1 or B == 0:
        return 0.0
    lengths = np.linalg.norm(interests, axis=2, keepdims=True)
    units = interests / np.maximum(lengths, 1e-12)
    cosines = units @ units.transpose(0, 2, 1)  # (B, K, K)
    return float((cosines.sum() - np.trace(cosines, axis1=1, axis2=2).sum()) / (B * K * (K - 1)))
