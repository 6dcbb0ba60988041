"""From a history to the model's input: the one definition that training and the streaming worker share.

The newest `length` clicks, oldest first, left-aligned, padded with 0 on the right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.arrays import IdMatrix, IdVector


def model_input(histories: Sequence[IdVector], length: int) -> tuple[IdMatrix, IdVector]:
    """Input of the encoder for B users.

    Args:
        histories: for each user its item ids or rows, oldest first, int64, any number of them. The caller has dropped
            the items that the model cannot embed: what is unknown must not push a known click out of the window.
        length: L, clicks that the model reads.

    Returns:
        ids: (B, L) int64, padded with 0; lengths: (B,) int64, clicks in each row.
    """
    ends = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    clicks = np.concatenate(histories, dtype=np.int64) if len(histories) else np.empty(0, np.int64)
    return windows(clicks, ends[:-1], ends[1:], length)


def windows(clicks: IdVector, starts: IdVector, ends: IdVector, length: int) -> tuple[IdMatrix, IdVector]:
    """`model_input` of the histories `clicks[start:end]`; `starts` and `ends` have shape (B,)."""
    lengths = np.minimum(ends - starts, length)
    places = (ends - lengths)[:, None] + np.arange(length)  # (B, L)
    inside = places < ends[:, None]
    ids = np.zeros(places.shape, np.int64)
    ids[inside] = clicks[places[inside]]
    return ids, lengths
