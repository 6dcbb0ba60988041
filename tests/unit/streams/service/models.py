"""A small model for tests of the page: two interests, ten items in five directions, and their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs.schema import Recall
from model.artifact import Artifact, save_artifact
from model.explanation.names import ItemName
from model.serving.encoder import Routing
from streams.recall.engine import RecallEngine
from streams.recall.factory import build_engine
from streams.recall.memory import MemoryIndex

ROUTING = Routing(1, 1.0, "interests", normalise=True, relu=False, residual=0.0, by_history=False)
#: Item i and item i + 5 have the direction of axis i - 1; the second is a little turned to the next axis.
ITEMS = 10
NAMES = {1: ItemName("Comets", "Astronomy"), 6: ItemName("The Moon", "Astronomy"), 2: ItemName("Pies", "Baking")}


def small_artifact(folder: Path, *, by_history: bool = False) -> Artifact:
    """Write an artifact that reads three clicks: interest 0 is mostly the newest, interest 1 the one before."""
    axes = np.eye(5)
    vectors = np.concatenate([axes, axes + 0.1 * np.roll(axes, 1, axis=1)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = {"bilinear": np.eye(5), "output": np.eye(5), "bias": np.zeros(5), "recency": np.zeros(3)}
    weights["start"] = np.log(np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]]))
    routing = {**ROUTING.to_dict(), "by_history": by_history}
    return save_artifact(
        folder,
        weights={name: value.astype(np.float32) for name, value in weights.items()},
        interests=2,
        history_length=3,
        encoder=routing,
        item_ids=np.arange(1, ITEMS + 1),
        item_vectors=vectors.astype(np.float32),
        item_counts=np.arange(ITEMS, 0, -1),
        users=1,
        clicks=55,
        config={},
    )


def small_engine(artifact: Artifact, *, filter_seen: bool = True) -> tuple[RecallEngine, MemoryIndex]:
    """Return an engine over a memory index with the model's items."""
    index = MemoryIndex(artifact.model_version, artifact.dim)
    index.upsert(artifact.item_ids, np.array(artifact.item_vectors))
    settings = Recall(
        top_k=4,
        interests=None,
        filter_seen=filter_seen,
        catalogue_share=0.0,
        new_item_cache=10,
        new_item_refresh=60.0,
        unknown_item_ttl=1.0,
    )
    return build_engine(settings, artifact, index), index
