"""The protocols between recall and the outside world: the encoder, the model's items, the item index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.arrays import FloatArray, IdArray, IdVector, IntMatrix, IntVector


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The content of an item index.

    Attributes:
        model_version: the model that the vectors belong to.
        dim: dimension of the vectors.
        metric: "IP", the inner product.
        count: number of items.
    """

    model_version: str
    dim: int
    metric: str
    count: int


class InterestEncoder(Protocol):
    """Turns histories into interest vectors; `model.serving.encoder.Encoder` is the real one."""

    @property
    def dim(self) -> int:
        """D, the dimension of embeddings and interest vectors."""
        ...

    @property
    def interests(self) -> int:
        """K, the number of interest vectors of a user."""
        ...

    @property
    def history_length(self) -> int:
        """L, the largest number of clicks that it reads."""
        ...

    @property
    def fusion(self) -> float:
        """The weight of the other interests in a candidate's score; see `model.serving.merge`."""
        ...

    def encode(self, embeddings: FloatArray, lengths: IdArray) -> FloatArray:
        """Return (B, K, D) float32 interest vectors of (B, L, D) float32 embeddings with (B,) lengths."""
        ...


class KnownItems(Protocol):
    """The items that the model was trained on; `model.artifact.Artifact` is the real one."""

    @property
    def item_vectors(self) -> FloatArray:
        """The embeddings, (N, D) float32."""
        ...

    def rows(self, ids: IdArray) -> IdArray:
        """Return the rows of `item_vectors` of (n,) item ids; -1 for unknown ids."""
        ...


class ItemReader(Protocol):
    """The reads of an item index that a recall engine needs."""

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        """Return ids (Q, limit) int64 and scores (Q, limit) float32, best first, for (Q, D) float32 queries.

        Where there are fewer items than `limit`, the rest has id 0 and score -inf. May miss the latest writes.
        """
        ...

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        """Return the vectors, (D,) each, of those ids that the index holds. May miss the latest writes.

        Raises:
            RefusedData: the server cannot look up one of the ids.
        """
        ...


class ItemIndex(ItemReader, Protocol):
    """Nearest-item search by inner product over the item vectors of one model version."""

    def upsert(self, ids: IdArray, vectors: FloatArray, sources: IntMatrix | None = None) -> None:
        """Insert or replace items, (n,) distinct ids and (n, D) vectors; return when the index has accepted them.

        Args:
            ids, vectors: the items.
            sources: (n, 2), partition and offset of the message that each row comes from; None = no message.
        """
        ...

    def delete(self, ids: IdArray) -> None:
        """Remove items; unknown ids are ignored."""
        ...

    def seal(self) -> None:
        """Have everything that was written so far indexed for fast search, some time after the return.

        Call it after bulk loads, not after single items.
        """
        ...

    def describe(self) -> IndexInfo:
        """Return the content of the index; the count sees every acknowledged write."""
        ...


class ItemTable(ItemIndex, Protocol):
    """An item index whose rows say which message they come from."""

    @property
    def identity(self) -> str:
        """Text that tells this index from one that was dropped before, or is created later, under the same name."""
        ...

    def check_identity(self) -> None:
        """Check that the index has not been replaced; do nothing while the server is unavailable.

        Raises:
            RestartRequired: it was dropped, and perhaps created again: what was written is not in it.
        """
        ...

    def bind(self, topic: str, topic_id: str) -> None:
        """Record that the rows name offsets of this topic.

        Raises:
            FatalError: they name offsets of another topic.
        """
        ...

    def sources(self, ids: IdArray) -> Mapping[int, tuple[int, int]]:
        """Return id → (partition, offset) of those ids that the index holds; sees every acknowledged write."""
        ...

    def rows(self, partition: int) -> Iterator[tuple[IdVector, IntVector]]:
        """Yield chunks of the ids and source offsets of all rows from a partition. May miss the latest writes."""
        ...


def no_sources(n: int) -> IntMatrix:
    """Return the sources of n rows that no message has written: partition and offset are -1."""
    return np.full((n, 2), -1, dtype=np.int64)
