"""Pack a score and a position into one integer, so that one sort ranks by score, then by position.

NumPy sorts integers several times faster than it finds the order of two arrays (`lexsort`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.arrays import FloatArray, IntArray

Keys = npt.NDArray[np.int64]

#: Key of "no entry": sorts behind all others.
NONE = np.iinfo(np.int64).max


def pack(scores: FloatArray, positions: IntArray) -> Keys:
    """Return keys that ascend from the best score to the worst, and by position among equal scores.

    Both arrays have the same shape; scores are not NaN, and 0 ≤ position < 2³².
    """
    bits = (scores + np.float32(0)).view(np.int32)  # + 0: no negative zero
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # the bits of negative floats descend
    packed: Keys = (~rising).astype(np.int64) << 32 | positions
    return packed


def positions_of(packed: Keys) -> IntArray:
    """Return the positions; meaningless for `NONE`."""
    return packed & 0xFFFFFFFF


def scores_of(packed: Keys) -> FloatArray:
    """Return the scores; -inf for `NONE`."""
    rising = ~(packed >> 32).astype(np.int32)
    scores: FloatArray = (rising ^ ((rising >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    scores[packed == NONE] = -np.inf
    return scores
