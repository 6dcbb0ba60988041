"""Convert histories to the model's input. Training and the streaming worker share this definition.

The input is the newest `length` clicks, oldest first, left-aligned, padded with 0 on the right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.arrays import IdMatrix, IdVector, IntVector


def model_input(histories: Sequence[IdVector], length: int) -> tuple[IdMatrix, IntVector]:
    """Return the encoder's input for the histories of B users.

    Args:
        histories: item ids or rows of each user, (n,) int64, oldest first, n from 0. The caller has removed the items
            that the model cannot embed: an unknown item must not push a known click out of the window.
        length: L, clicks that the model reads.

    Returns:
        ids: (B, L) int64, padded with 0; lengths: (B,) int64, clicks in each row.
    """
    ends = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    clicks = np.concatenate(histories, dtype=np.int64) if len(histories) else np.empty(0, np.int64)
    return windows(clicks, ends[:-1], ends[1:], length)


def windows(clicks: IdVector, starts: IntVector, ends: IntVector, length: int) -> tuple[IdMatrix, IntVector]:
    """Return `model_input` of the histories `clicks[start:end]`; `starts` and `ends` have shape (B,)."""
    lengths = np.minimum(ends - starts, length)
    positions = (ends - lengths)[:, None] + np.arange(length)  # (B, L)
    inside = positions < ends[:, None]
    ids = np.zeros(positions.shape, np.int64)
    ids[inside] = clicks[positions[inside]]
    return ids, lengths
