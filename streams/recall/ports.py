"""What recall needs of the outside world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an item index holds."""

    model_version: str
    dim: int
    metric: str
    count: int


class InterestEncoder(Protocol):
    """Turns histories into interest vectors; `model.serving.encoder.Encoder` is the real one."""

    @property
    def dim(self) -> int: ...
    @property
    def interests(self) -> int: ...
    @property
    def history_length(self) -> int: ...
    @property
    def fusion(self) -> float: ...
    def encode(self, embeddings: FloatArray, lengths: IdArray) -> FloatArray:
        """(B, L, D) float32 embeddings, (B,) lengths → (B, K, D) float32 interest vectors."""
        ...


class KnownItems(Protocol):
    """The items that the model was trained on; `model.artifact.Artifact` is the real one."""

    @property
    def item_vectors(self) -> FloatArray:
        """(N, D) float32."""
        ...

    def rows(self, ids: IdArray) -> IdArray:
        """(n,) item ids → (n,) rows of `item_vectors`; -1 for unknown ids."""
        ...


class ItemIndex(Protocol):
    """Nearest-item search by inner product over the item vectors of one model version."""

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        """(Q, D) float32 → ids (Q, limit) int64 and scores (Q, limit) float32, best first.

        Fewer items than `limit`: the rest has id 0 and score -inf. May miss writes of the last moments.
        """
        ...

    def upsert(self, ids: IdArray, vectors: FloatArray) -> None:
        """Insert or replace items: (n,) distinct ids, (n, D) vectors. Returns when the index has accepted them."""
        ...

    def delete(self, ids: IdArray) -> None:
        """Remove items; unknown ids are ignored."""
        ...

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        """Vectors, (D,) each, of those ids that the index holds. May miss writes of the last moments."""
        ...

    def seal(self) -> None:
        """Have what was written so far made fast to search, some time after the return. Not for single items."""
        ...

    def describe(self) -> IndexInfo:
        """What the index holds; the count sees every acknowledged write."""
        ...
