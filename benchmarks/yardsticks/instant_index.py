"""The worker with an index that answers instantly, for `throughput` alone: what everything but Milvus can do.

Its options are those of `python -m streams worker`. Production code has no hook for it: the name is replaced in
`streams.worker.build`.
"""

from __future__ import annotations

import sys

import numpy as np

import streams.worker.build
from configs.schema import Milvus
from streams.__main__ import main
from streams.recall.memory import MemoryIndex
from streams.recall.ports import FloatArray, IdArray

#: Answers to choose from: the merging must not have the same one for every interest.
_ANSWERS, _LONGEST = 4096, 1024


class InstantIndex(MemoryIndex):
    """Answers with items that were drawn beforehand."""

    def __init__(self, _settings: Milvus, model_version: str, dim: int, *, create: bool) -> None:  # noqa: ARG002
        super().__init__(model_version, dim)
        rng = np.random.default_rng(0)
        firsts = rng.integers(1, 2**20, size=(_ANSWERS, 1))
        self._ids: IdArray = firsts + np.arange(_LONGEST)
        self._scores: FloatArray = -np.sort(-rng.random((_ANSWERS, _LONGEST), dtype=np.float32), axis=1)

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        rows = np.arange(len(queries)) % _ANSWERS
        return self._ids[rows, :limit], self._scores[rows, :limit]


if __name__ == "__main__":
    assert hasattr(streams.worker.build, "MilvusIndex")
    setattr(streams.worker.build, "MilvusIndex", InstantIndex)  # noqa: B010 - imported there, not exported
    main(sys.argv[1:], prog_name="instant worker")
