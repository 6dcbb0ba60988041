"""Cluster items by their vectors: a substitute for categories, which click files do not have."""

from __future__ import annotations

import numpy as np

from model.arrays import FloatMatrix, IntVector

#: Clusters of the catalogue; `python -m model.evaluate` counts how many different ones a list has.
CLUSTERS = 50
#: Number of items that the centres are computed from, and of iterations; each other item gets the nearest centre.
SAMPLE_ITEMS, ITERATIONS = 20_000, 20
#: Items that are assigned to centres in one step; their scores take 13 MB.
_BLOCK_ITEMS = 65_536


def k_means(units: FloatMatrix, clusters: int, rng: np.random.Generator) -> IntVector:
    """Return the cluster of each item, (N,) int64, by spherical k-means (Dhillon and Modha 2001): nearest by cosine.

    Args:
        units: (N, D) float32, vectors of length 1; clusters: at most N are used.
    """
    sample = units[np.sort(rng.permutation(len(units))[:SAMPLE_ITEMS])]
    centres = sample[rng.permutation(len(sample))[:clusters]]  # (C, D)
    for _ in range(ITERATIONS):
        label = nearest(sample, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, label, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)  # an empty cluster keeps its centre
    return nearest(units, centres)


def nearest(units: FloatMatrix, centres: FloatMatrix) -> IntVector:
    """Return the index of the centre with the largest inner product, (N,) int64."""
    starts = range(0, len(units), _BLOCK_ITEMS)
    return np.concatenate([(units[begin : begin + _BLOCK_ITEMS] @ centres.T).argmax(axis=1) for begin in starts])
