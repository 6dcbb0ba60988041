"""A model measured as it is served: its items in Milvus, searched and merged by the worker's own engine.

The one module of this room that imports from `streams`, loaded by `python -m model.evaluate --milvus` alone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from configs.errors import MindstreamError
from configs.schema import WorkerConfig
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.evaluation.measure import EvaluationError
from streams.milvus.index import MilvusIndex
from streams.processing.items import SEAL_AFTER
from streams.recall.engine import RecallEngine
from streams.recall.factory import build_engine

IdMatrix = npt.NDArray[np.int64]

#: Seconds until Milvus must show and have indexed the whole catalogue.
PATIENCE = 600.0
#: Seconds between two looks whether it has.
_POLL = 0.1
#: Most hits that Milvus gives for one query.
_MAX_LIMIT = 16_384


@dataclass(frozen=True, eq=False)
class ServedIndex:
    """`model.evaluation.measure.Index` over a Milvus collection; the artifact's items are in it."""

    artifact: Artifact
    index: MilvusIndex
    config: WorkerConfig

    def recommend(self, history: Clicks, n: int, *, filter_seen: bool) -> tuple[IdMatrix, IdMatrix]:
        """See `model.evaluation.measure.Index`. Filtering sees the whole history, not only the worker's window."""
        B, size = len(history), self.config.batch.size
        ids, brought = np.zeros((B, n), np.int64), np.full((B, n), -1)
        engine = self._engine(n, filter_seen)
        by_length = np.argsort(history.lengths, kind="stable")  # a batch asks for as many more as its longest has seen
        for begin in range(0, B, size):
            batch = by_length[begin : begin + size]
            answers = engine.recall([history.of(user)[-(_MAX_LIMIT - n) :] for user in batch])
            for user, found in zip(batch, answers, strict=True):
                if found is not None:
                    ids[user, : len(found.item_ids)] = found.item_ids
                    brought[user, : len(found.item_ids)] = found.interests
        return ids, brought

    def _engine(self, n: int, filter_seen: bool) -> RecallEngine:
        settings = self.config.recall.model_copy(update={"top_k": n, "filter_seen": filter_seen})
        return build_engine(settings, self.artifact, self.index)


@contextmanager
def temporary_index(artifact: Artifact, config: WorkerConfig) -> Iterator[ServedIndex]:
    """The artifact's items in a collection of a new name, dropped at the end however that comes.

    Raises:
        TransientError: Milvus is unavailable.
        FatalError: Milvus refuses.
        EvaluationError: Milvus does not show or index all items.
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
    """Writes all items and waits until searches find them as they do in service: through the graph."""
    N, size = len(artifact.item_ids), config.items.batch_size
    for begin in range(0, N, size):
        part = slice(begin, begin + size)
        index.upsert(artifact.item_ids[part], np.asarray(artifact.item_vectors[part]))
    deadline = time.monotonic() + PATIENCE
    _wait("show", lambda: index.describe().count, N, deadline)
    if N >= SEAL_AFTER:  # fewer are compared one by one in service, too
        index.seal()
        if _has_graph(index):
            _wait("index", index.searchable_by_graph, N, deadline)


def _has_graph(index: MilvusIndex) -> bool:
    """milvus-lite indexes as it goes, and cannot be asked."""
    try:
        index.searchable_by_graph()
    except MindstreamError:
        return False
    return True


def _wait(what: str, count: Callable[[], int], items: int, deadline: float) -> None:
    while (number := count()) < items:
        if time.monotonic() > deadline:
            raise EvaluationError(f"Milvus does not {what} more than {number:,} of {items:,} items")
        time.sleep(_POLL)
