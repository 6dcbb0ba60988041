"""Quality of a model on held-out users, by the protocol that the published figures use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.data import Clicks, Holdout
from model.encoder import Encoder
from model.inputs import IdVector, model_input
from model.metrics import exact_top, interest_cosine, quality

FloatArray = npt.NDArray[np.float32]

#: Users encoded at once: bounds the memory, changes no figure.
BATCH = 1024


def rows_of(item_ids: IdVector, ids: IdVector) -> IdVector:
    """Places of (n,) ids in the ascending `item_ids`, from 1; 0 for unknown ones."""
    places = np.minimum(np.searchsorted(item_ids, ids), len(item_ids) - 1)
    return np.where(item_ids[places] == ids, places + 1, 0)


def evaluate(
    encoder: Encoder, item_ids: IdVector, item_vectors: FloatArray, users: Holdout, n: int
) -> dict[str, float]:
    """Recall, hit rate and NDCG at n (see `model.metrics.quality`), and the mean cosine of a user's interests.

    Every item is a candidate, items of the history too. Unknown items are dropped from histories and stay among the
    targets, where they count as missed.

    Args:
        item_ids: (N,) int64 ascending; item_vectors: (N, D) float32; users: with item ids; n: cut at N.
    """
    interests = encode_users(encoder, item_ids, item_vectors, users.history)
    top = exact_top(interests, item_vectors, min(n, len(item_ids)))
    some = users.history.lengths > 0
    return quality(item_ids[top], users.targets) | {"interest_cosine": interest_cosine(interests[some])}


def encode_users(encoder: Encoder, item_ids: IdVector, item_vectors: FloatArray, history: Clicks) -> FloatArray:
    """(U, K, D) float32, interests of users from the items that the model knows."""
    interests = np.empty((len(history), encoder.interests, encoder.dim), np.float32)
    table = np.concatenate([np.zeros((1, item_vectors.shape[1]), np.float32), item_vectors])
    rows = rows_of(item_ids, history.items)
    for begin in range(0, len(history), BATCH):
        users = range(begin, min(begin + BATCH, len(history)))
        known = [rows[history.offsets[u] : history.offsets[u + 1]] for u in users]
        inputs, lengths = model_input([row[row > 0] for row in known], encoder.history_length)
        interests[users.start : users.stop] = encoder.encode(table[inputs], lengths)
    return interests
