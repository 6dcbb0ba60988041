"""Items sorted into clusters by their vectors: a stand-in for categories, which click files do not name."""

from __future__ import annotations

import numpy as np

from model.arrays import FloatArray, IdVector

#: Clusters that `python -m model.evaluate` counts in.
CLUSTERS = 50
#: Items that the centres are found with, and rounds; the others join the nearest centre. More changes little.
SAMPLE, ROUNDS = 20_000, 20
#: Items assigned at once: their scores take 13 MB.
_BLOCK = 65_536


def k_means(units: FloatArray, clusters: int, rng: np.random.Generator) -> IdVector:
    """(N,) the cluster of each item, by spherical k-means (Dhillon and Modha 2001): nearest by cosine.

    Args:
        units: (N, D) float32, vectors of length 1; clusters: at most N are used.
    """
    sample = units[np.sort(rng.permutation(len(units))[:SAMPLE])]
    centres = sample[rng.permutation(len(sample))[:clusters]]  # (C, D)
    for _ in range(ROUNDS):
        label = nearest(sample, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, label, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)  # an empty one stays
    return nearest(units, centres)


def nearest(units: FloatArray, centres: FloatArray) -> IdVector:
    """(N,) the index of the centre with the largest inner product."""
    starts = range(0, len(units), _BLOCK)
    return np.concatenate([(units[begin : begin + _BLOCK] @ centres.T).argmax(axis=1) for begin in starts])
