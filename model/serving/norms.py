"""The norms, that is Euclidean lengths, that the vectors of a model's items may have.

A search by inner product ranks by direction only among vectors of one norm: a vector a hundred times as long comes
first for every user.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model.arrays import DoubleArray, FloatArray, Mask
from model.artifact import Artifact

#: Largest deviation from norm 1. Rounding stays far below: float16 and bfloat16 change a norm by at most 0.4 %, four
#: decimals in 64 dimensions by 0.04 %. And 1 % changes a score by 1 %, less than neighbours in a list differ.
TOLERANCE = 0.01
#: Where norms are free, vectors beyond so many times the longest of the training are mistakes, such as a forgotten
#: division; interests computed from far longer ones would overflow to NaN.
LONGEST_FACTOR = 10
#: Rows of the memory map that are read at a time.
_CHUNK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Norms:
    """The norms from `lowest` to `highest`; `unit` = the model's vectors have norm 1."""

    lowest: float
    highest: float
    unit: bool

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Norms:
        """Return the norms that an item of this model may have."""
        if artifact.encoder.get("normalise", False):
            return cls(1 - TOLERANCE, 1 + TOLERANCE, unit=True)
        longest = max(float(norms_of(rows).max()) for rows in _chunks(artifact.item_vectors))
        return cls(0.0, LONGEST_FACTOR * longest, unit=False)

    def accept(self, vectors: FloatArray) -> Mask:
        """Return for each of (…, D) vectors, (…,) bool, whether an item may have it; False for NaN and infinity."""
        norms = norms_of(vectors)
        return (norms >= self.lowest) & (norms <= self.highest)

    def fault(self, vector: FloatArray) -> str | None:
        """Return what is wrong with the norm of a (D,) vector, as the end of a sentence; None if nothing is."""
        exact = vector.astype(np.float64)
        norm = math.sqrt(exact.dot(exact))  # a fifth of the time of `norms_of`, for each item that is published
        if self.lowest <= norm <= self.highest:
            return None
        if self.unit:
            return f"has norm {norm:.6g}, the model's vectors have norm 1: divide the vector by its norm"
        return (
            f"has norm {norm:.6g}, more than {LONGEST_FACTOR} times the longest of the model's vectors, "
            f"{self.highest / LONGEST_FACTOR:.6g}: publish it with the scale of the model's own vectors"
        )


def norms_of(vectors: FloatArray) -> DoubleArray:
    """Return the norms of (…, D) vectors, (…,) float64: the square of a large float32 is infinite in float32."""
    norms: DoubleArray = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=-1)
    return norms


def normalised(vectors: FloatArray) -> FloatArray:
    """Return (…, D) vectors with norm 1; those without direction, zeros or not finite, stay as they are."""
    norms = norms_of(vectors)[..., None]
    usable = np.isfinite(norms) & (norms > 0)
    return np.where(usable, vectors / np.where(usable, norms, 1), vectors).astype(np.float32)


def _chunks(vectors: FloatArray) -> Iterator[FloatArray]:
    for begin in range(0, len(vectors), _CHUNK_ROWS):
        yield vectors[begin : begin + _CHUNK_ROWS]
