"""Convert users to the rows of a catalogue, and encode them."""

from __future__ import annotations

import numpy as np

from model.arrays import FloatArray, IdVector
from model.data.clicks import Clicks
from model.serving.encoder import Encoder
from model.serving.inputs import model_input

#: Users encoded at once: limits the memory, and does not change results.
BATCH_USERS = 1024


def known_rows(history: Clicks, item_ids: IdVector) -> Clicks:
    """Return the same users with the rows of the ascending `item_ids` that they clicked; unknown items are left out."""
    rows = np.minimum(np.searchsorted(item_ids, history.items), len(item_ids) - 1)
    known = item_ids[rows] == history.items
    offsets = np.concatenate([[0], np.cumsum(known)])[history.offsets]
    return Clicks(history.users, offsets.astype(np.int64), rows[known])


def encode_users(encoder: Encoder, item_ids: IdVector, item_vectors: FloatArray, history: Clicks) -> FloatArray:
    """Return interests of users, (U, K, D) float32, from the items that the model knows; zeros if there are none."""
    interests = np.empty((len(history), encoder.interests, encoder.dim), np.float32)
    clicked = known_rows(history, item_ids)
    for begin in range(0, len(history), BATCH_USERS):
        users = range(begin, min(begin + BATCH_USERS, len(history)))
        inputs, lengths = model_input([clicked.items_of(u) for u in users], encoder.history_length)  # padded with row 0
        interests[users.start : users.stop] = encoder.encode(item_vectors[inputs], lengths)
    return interests
