"""Recommend with a model as the worker does: its items in Milvus, searched and merged by the worker's own engine.

`python -m model.evaluate --milvus` measures a model through it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from configs.errors import MindstreamError
from configs.schema import WorkerConfig
from model.arrays import IdMatrix
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.evaluation.measure import EvaluationError
from streams.milvus.index import MilvusIndex
from streams.processing.items import SEAL_AFTER_UPSERTS
from streams.recall.engine import RecallEngine
from streams.recall.factory import build_engine

#: Seconds within which Milvus must show and index the whole catalogue.
TIMEOUT_S = 600.0
#: Seconds between two queries of its progress.
_POLL_INTERVAL_S = 0.1
#: Most hits that Milvus returns for one query.
_MAX_HITS_PER_QUERY = 16_384


@dataclass(frozen=True, eq=False)
class ServedIndex:
    """`model.evaluation.measure.Index` over a Milvus collection that holds the artifact's items."""

    artifact: Artifact
    index: MilvusIndex
    config: WorkerConfig

    def recommend(self, history: Clicks, n: int, *, filter_seen: bool) -> tuple[IdMatrix, IdMatrix]:
        """See `model.evaluation.measure.Index`. Items of the whole history are filtered, not only of the last clicks.

        Raises:
            TransientError, FatalError: see `MilvusIndex`.
        """
        B, batch_size = len(history), self.config.batch.size
        ids, interests = np.zeros((B, n), np.int64), np.full((B, n), -1)
        engine = self._engine(n, filter_seen)
        # A batch asks for as many extra hits as its longest history has items: keep similar lengths together.
        by_length = np.argsort(history.lengths, kind="stable")
        for begin in range(0, B, batch_size):
            batch = by_length[begin : begin + batch_size]
            results = engine.recall([history.items_of(user)[-(_MAX_HITS_PER_QUERY - n) :] for user in batch])
            for user, result in zip(batch, results, strict=True):
                if result is not None:
                    ids[user, : len(result.item_ids)] = result.item_ids
                    interests[user, : len(result.item_ids)] = result.interests
        return ids, interests

    def _engine(self, n: int, filter_seen: bool) -> RecallEngine:
        settings = self.config.recall.model_copy(update={"top_k": n, "filter_seen": filter_seen})
        return build_engine(settings, self.artifact, self.index)


@contextmanager
def temporary_index(artifact: Artifact, config: WorkerConfig) -> Iterator[ServedIndex]:
    """Put the artifact's items into a new collection with a random name, and drop it at the end in any case.

    Raises:
        TransientError, FatalError: see `MilvusIndex`.
        EvaluationError: Milvus does not show or index all items in time.
    """
    version = f"evaluation_{uuid.uuid4().hex[:12]}"
    index = MilvusIndex(config.milvus, version, artifact.dim, create=True)
    try:
        _fill(index, artifact, config)
        yield ServedIndex(artifact, index, config)
    finally:
        try:
            index.drop()
        finally:
            index.close()


def _fill(index: MilvusIndex, artifact: Artifact, config: WorkerConfig) -> None:
    """Write all items and wait until searches find them as in service: through the graph."""
    N, batch_size = len(artifact.item_ids), config.items.batch_size
    for begin in range(0, N, batch_size):
        batch = slice(begin, begin + batch_size)
        index.upsert(artifact.item_ids[batch], np.asarray(artifact.item_vectors[batch]))
    deadline = time.monotonic() + TIMEOUT_S
    _wait("show", lambda: index.describe().count, N, deadline)
    if N >= SEAL_AFTER_UPSERTS:  # searches compare fewer items one by one in service, too
        index.seal()
        if _can_count_indexed(index):
            _wait("index", index.indexed_count, N, deadline)


def _can_count_indexed(index: MilvusIndex) -> bool:
    """Return whether this server can count indexed items; milvus-lite, which indexes at once, cannot."""
    try:
        index.indexed_count()
    except MindstreamError:
        return False
    return True


def _wait(verb: str, count: Callable[[], int], items: int, deadline: float) -> None:
    while (number := count()) < items:
        if time.monotonic() > deadline:
            raise EvaluationError(f"Milvus does not {verb} more than {number:,} of {items:,} items")
        time.sleep(_POLL_INTERVAL_S)
