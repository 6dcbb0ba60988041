"""Metrics of recommendation lists, one value for each user, and their confidence intervals, in NumPy.

The protocol is that of ComiRec (arXiv 2005.09347), with NDCG normalised by min(n, targets). NDCG "over hits", which
ComiRec's code and others publish, is for comparison with them. NaN = the metric is not defined for this user.
"""

from __future__ import annotations

import numpy as np

from model.arrays import DoubleArray, FloatArray, IdMatrix, IntVector, Mask
from model.data.clicks import Clicks
from model.evaluation.search import NO_ROW

#: Resamples of a bootstrap, and the share of them that the interval contains.
RESAMPLES, CONFIDENCE = 1000, 0.95
#: Bytes of the resamples that are multiplied at once.
_BOOTSTRAP_BYTES = 32 * 2**20


def quality(top: IdMatrix, targets: Clicks, n: int) -> dict[str, float]:
    """Return the means over users of recall, hit rate and NDCG at n, as fractions; see `ranking`.

    Args:
        top: (B, n or less), recommended items, best first; targets: B users with at least one target each. Both hold
            ids, or both rows.
    """
    values = ranking(*hits(top, targets))
    return {f"{name}@{n}": float(values[name].mean()) for name in ("recall", "hit_rate", "ndcg")}


def hits(top: IdMatrix, targets: Clicks) -> tuple[Mask, IntVector]:
    """Return which recommended items are targets, (B, n) bool, and the number of different targets of each user, (B,).

    Args:
        top: (B, n), different items for each user; targets: B users. Both hold ids, or both rows.
    """
    B, n = top.shape
    _, index = np.unique(np.concatenate([top.ravel(), targets.items]), return_inverse=True)
    size = len(index) + 1
    user = np.repeat(np.arange(B), targets.lengths)
    wanted = np.unique(user * size + index[B * n :])  # one number for each pair of user and item
    found = np.isin(np.arange(B)[:, None] * size + index[: B * n].reshape(B, n), wanted)
    return found, np.bincount(wanted // size, minlength=B)


def ranking(found: Mask, count: IntVector) -> dict[str, DoubleArray]:
    """Return recall, hit rate and NDCG at n of each user, (B,) float64 each.

    recall = hits / targets; hit rate = 1 if there is a hit; NDCG (Järvelin and Kekäläinen 2002, with gain 0 or 1) =
    Σ 1/log2(rank + 1) over the hits, ranks from 1, divided by its largest possible value, which has min(n, targets)
    terms. "Over hits", the divisor has as many terms as there are hits, so that a single hit at rank 1 counts 1,
    however many targets were missed. Targets clicked twice count once.

    Args:
        found: (B, n) bool, which recommended items are targets, best first; count: (B,), targets, at least 1.
    """
    n = found.shape[1]
    number = found.sum(axis=1)
    gains = 1 / np.log2(np.arange(2, n + 2))
    ideal = np.cumsum(gains)  # of 1 to n terms
    gained = found @ gains
    return {
        "recall": number / count,
        "hit_rate": (number > 0).astype(np.float64),
        "ndcg": gained / ideal[np.minimum(n, count) - 1],
        "ndcg_over_hits": gained / ideal[np.maximum(number, 1) - 1],
    }


def diversity(top: IdMatrix, units: FloatArray) -> DoubleArray:
    """Return the intra-list diversity, (B,): 1 − mean cosine of two different items of the list; NaN below two items.

    Smyth and McClave 2001, "Similarity vs. diversity"; Ziegler et al. 2005, "Improving recommendation lists through
    topic diversification".

    Args:
        top: (B, n), rows of `units` or `NO_ROW`; units: (N, D) float32, the items' vectors at length 1.
    """
    given = (top != NO_ROW)[:, :, None]
    vectors = np.where(given, units[top], np.float32(0))  # (B, n, D)
    m = given.sum(axis=(1, 2))
    total = vectors.sum(axis=1, dtype=np.float64)  # |Σ u|² = Σ |u|² + Σ over ordered pairs
    pairs = np.square(total).sum(axis=1) - np.square(vectors).sum(axis=(1, 2), dtype=np.float64)
    return np.where(m < 2, np.nan, 1 - pairs / np.maximum(m * (m - 1), 1))


def distinct(labels: IdMatrix) -> DoubleArray:
    """Count the different labels in each row of (B, n), without -1: (B,); NaN for rows without labels."""
    ordered = np.sort(labels, axis=1)
    first = np.concatenate([np.ones((len(labels), 1), bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    number = (first & (ordered >= 0)).sum(axis=1)
    return np.where(number == 0, np.nan, number)


def shares(labels: IdMatrix, size: int) -> DoubleArray:
    """Return the share of each label, 0 to size - 1, in each row of (B, n), without -1: (B, size); NaN if no labels."""
    number = np.stack([(labels == label).sum(axis=1) for label in range(size)], axis=1)
    total = number.sum(axis=1, keepdims=True)
    return np.where(total == 0, np.nan, number / np.maximum(total, 1))


def interest_cosines(interests: FloatArray) -> DoubleArray:
    """Return the mean cosine of two different interests of each user, (B, K, D) → (B,); 1 = all equal, 0 for K = 1."""
    B, K, _ = interests.shape
    if K == 1:
        return np.zeros(B)
    lengths = np.linalg.norm(interests, axis=2, keepdims=True)
    units = interests / np.maximum(lengths, 1e-12)
    cosines = units @ units.transpose(0, 2, 1)  # (B, K, K)
    both = cosines.sum(axis=(1, 2), dtype=np.float64) - np.trace(cosines, axis1=1, axis2=2)
    return np.asarray(both / (K * (K - 1)), np.float64)


def interest_cosine(interests: FloatArray) -> float:
    """Return the mean of `interest_cosines`; 0 without users."""
    return float(interest_cosines(interests).mean()) if len(interests) else 0.0


def bootstrap(values: DoubleArray, rng: np.random.Generator, resamples: int = RESAMPLES) -> DoubleArray:
    """Return percentile intervals of means over users (Efron and Tibshirani 1993, chapter 13).

    All columns use the same resamples of users. A resample is represented by how often each user was drawn, so that the
    means of a few resamples are one product with little memory.

    Args:
        values: (U, M), NaN where a user has no value.

    Returns:
        (2, M), the ends of the intervals, from the resamples with a value; NaN for columns without any value.
    """
    U = len(values)
    given = np.isfinite(values)
    summands = np.concatenate([np.where(given, values, 0), given], axis=1)  # (U, 2 M)
    step = max(1, _BOOTSTRAP_BYTES // (8 * U))
    sums = []
    for begin in range(0, resamples, step):
        drawn = [np.bincount(rng.integers(0, U, U), minlength=U) for _ in range(begin, min(begin + step, resamples))]
        sums.append(np.array(drawn, np.float64) @ summands)
    total, number = np.split(np.concatenate(sums), 2, axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 = NaN is intended
        means = total / number
    tail = (1 - CONFIDENCE) / 2
    ends = np.full((2, values.shape[1]), np.nan)
    some = given.any(axis=0)
    ends[:, some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0)
    return ends
