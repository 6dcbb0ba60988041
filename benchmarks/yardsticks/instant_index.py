"""The worker with an index that answers instantly, for `throughput` only: the speed of everything but Milvus.

Its options are those of `python -m streams worker`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from configs.schema import Milvus
from model.arrays import FloatArray, IdArray
from streams.__main__ import main
from streams.recall.memory import MemoryIndex
from streams.recall.ports import IndexInfo
from streams.worker.parts import WorkerParts

#: Number of different answers, because merging the same list for all interests would be too easy; their length.
_ANSWERS, _LONGEST = 4096, 1024
#: Number of items that it claims to hold: more than any model has.
_COUNT = 10**9


class InstantIndex(MemoryIndex):
    """Answers searches with items that were drawn when it was built."""

    def __init__(self, _settings: Milvus, model_version: str, dim: int, *, create: bool) -> None:  # noqa: ARG002
        super().__init__(model_version, dim)
        rng = np.random.default_rng(0)
        firsts = rng.integers(1, 2**20, size=(_ANSWERS, 1))
        self._ids: IdArray = firsts + np.arange(_LONGEST)
        self._scores: FloatArray = -np.sort(-rng.random((_ANSWERS, _LONGEST), dtype=np.float32), axis=1)

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        rows = np.arange(len(queries)) % _ANSWERS
        return self._ids[rows, :limit], self._scores[rows, :limit]

    def describe(self) -> IndexInfo:
        return replace(super().describe(), count=_COUNT)


if __name__ == "__main__":
    main(sys.argv[1:], prog_name="instant worker", obj=WorkerParts(index=InstantIndex))
