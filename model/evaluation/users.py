"""Test users: read in either format, in the model's own numbering, and encoded."""

from __future__ import annotations

import numpy as np

from model.arrays import FloatArray, IdVector
from model.data.clicks import Clicks
from model.serving.encoder import Encoder
from model.serving.inputs import model_input

#: Users encoded at once: bounds the memory, changes no figure.
BATCH = 1024


def rows_of(item_ids: IdVector, ids: IdVector) -> IdVector:
    """Places of (n,) ids in the ascending `item_ids`, from 1; 0 for unknown ones."""
    places = np.minimum(np.searchsorted(item_ids, ids), len(item_ids) - 1)
    return np.where(item_ids[places] == ids, places + 1, 0)


def known(history: Clicks, item_ids: IdVector) -> Clicks:
    """The same users with the rows of `item_ids`, from 0, that they have clicked; unknown items are left out."""
    rows = rows_of(item_ids, history.items)
    ends = np.concatenate([[0], np.cumsum(rows > 0)])[history.offsets]
    return Clicks(history.users, ends.astype(np.int64), rows[rows > 0] - 1)


def encode_users(encoder: Encoder, item_ids: IdVector, item_vectors: FloatArray, history: Clicks) -> FloatArray:
    """(U, K, D) float32, interests of users from the items that the model knows; zeros for who has clicked none."""
    interests = np.empty((len(history), encoder.interests, encoder.dim), np.float32)
    clicked = known(history, item_ids)
    for begin in range(0, len(history), BATCH):
        users = range(begin, min(begin + BATCH, len(history)))
        inputs, lengths = model_input([clicked.of(u) for u in users], encoder.history_length)  # padded with row 0
        interests[users.start : users.stop] = encoder.encode(item_vectors[inputs], lengths)
    return interests


def part_of(clicks: Clicks, begin: int, end: int) -> Clicks:
    """The users from `begin` to before `end`, counted from 0."""
    offsets = clicks.offsets[begin : end + 1]
    return Clicks(clicks.users[begin:end], offsets - offsets[0], clicks.items[offsets[0] : offsets[-1]])
