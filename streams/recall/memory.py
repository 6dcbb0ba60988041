"""The item index in memory, for tests and offline computation; the reference of the contract tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from model.arrays import FloatArray, IdArray, IdVector, IntMatrix, IntVector
from model.serving.merge import PADDING
from streams.recall.ports import IndexInfo, no_sources


class MemoryIndex:
    """Exact inner-product search over a dict of vectors."""

    identity = "memory"

    def __init__(self, model_version: str, dim: int) -> None:
        self._version = model_version
        self._dim = dim
        self._vectors: dict[int, FloatArray] = {}
        self._sources: dict[int, tuple[int, int]] = {}

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        Q = len(queries)
        ids = np.full((Q, limit), PADDING, dtype=np.int64)
        scores = np.full((Q, limit), -np.inf, dtype=np.float32)
        if self._vectors:
            item_ids = np.array(list(self._vectors), dtype=np.int64)  # (N,)
            products = queries @ np.stack(list(self._vectors.values())).T  # (Q, N)
            best = np.argsort(-products, axis=1, kind="stable")[:, :limit]  # (Q, ≤ limit)
            ids[:, : best.shape[1]] = item_ids[best]
            scores[:, : best.shape[1]] = np.take_along_axis(products, best, axis=1)
        return ids, scores

    def upsert(self, ids: IdArray, vectors: FloatArray, sources: IntMatrix | None = None) -> None:
        sources = no_sources(len(ids)) if sources is None else sources
        self._vectors.update(zip(ids.tolist(), vectors.astype(np.float32), strict=True))
        self._sources.update((i, (p, o)) for i, (p, o) in zip(ids.tolist(), sources.tolist(), strict=True))

    def delete(self, ids: IdArray) -> None:
        for item_id in ids.tolist():
            self._vectors.pop(item_id, None)
            self._sources.pop(item_id, None)

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        return {item_id: self._vectors[item_id] for item_id in ids.tolist() if item_id in self._vectors}

    def seal(self) -> None:
        pass

    def describe(self) -> IndexInfo:
        return IndexInfo(self._version, self._dim, "IP", len(self._vectors))

    def check_identity(self) -> None:
        pass

    def bind(self, topic: str, topic_id: str) -> None:
        pass

    def sources(self, ids: IdArray) -> Mapping[int, tuple[int, int]]:
        return {item_id: self._sources[item_id] for item_id in ids.tolist() if item_id in self._sources}

    def rows(self, partition: int) -> Iterator[tuple[IdVector, IntVector]]:
        found = [(item_id, offset) for item_id, (source, offset) in self._sources.items() if source == partition]
        if found:
            columns = np.array(found, dtype=np.int64)
            yield columns[:, 0], columns[:, 1]
