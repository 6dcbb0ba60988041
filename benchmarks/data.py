"""Data to measure with: a model with random weights, and generated clicks. Both follow from their seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.artifact import Artifact, save_artifact
from model.encoder import Routing
from producers.clicks import ClickLog
from producers.synthetic import Shape, generate

#: Interests of the generated model, as of the shipped one.
INTERESTS = 4
#: Vectors drawn at once: bounds the memory of large catalogues.
_CHUNK = 65_536


def random_artifact(folder: Path, items: int, dim: int, length: int = 20, seed: int = 0) -> Artifact:
    """A model with random weights and item vectors of length 1: as good as a trained one for everything but taste.

    Random vectors have no clusters: the hardest case for a graph index, so searches of a trained model are not slower.

    Args:
        items: N, ids 1 to N, the most popular first. dim: D. length: L, clicks that the encoder reads.
    """
    rng = np.random.default_rng(seed)
    vectors = np.empty((items, dim), dtype=np.float32)
    for begin in range(0, items, _CHUNK):
        part = vectors[begin : begin + _CHUNK]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    weights = {
        "bilinear": np.eye(dim, dtype=np.float32),
        "start": rng.standard_normal((INTERESTS, length), dtype=np.float32),
        "recency": np.zeros(length, dtype=np.float32),
        "output": np.eye(dim, dtype=np.float32),
        "bias": np.zeros(dim, dtype=np.float32),
    }
    routing = Routing(3, 0.2, "interests", normalise=True, relu=False, residual=0.0, by_history=False)
    return save_artifact(
        folder,
        weights=weights,
        interests=INTERESTS,
        history_length=length,
        encoder=routing.to_dict(),
        item_ids=np.arange(1, items + 1, dtype=np.int64),
        item_vectors=vectors,
        item_counts=np.arange(items, 0, -1, dtype=np.int64),
        users=1,
        clicks=items,
        config={},
    )


def click_log(clicks: int, users: int, items: int, seed: int = 0) -> ClickLog:
    """Clicks of users with several tastes on the items 1 to `items`, as the replay reads them from a file."""
    tastes = min(20, items)
    shape = Shape(users, items, clicks, tastes=tastes, tastes_per_user=min(3, tastes), drift=0.0)
    made = generate(shape, seed)
    return ClickLog(
        user_ids=list(range(users)),
        user=made.user.astype(np.int64),
        item=made.item.astype(np.int64),
        order=made.order.astype(np.float64),
        timed=False,
        malformed=0,
    )
