"""The seams to the outside world, in our own terms. Each has a real implementation and one in memory; contract tests
run on both. Implementations raise `TransientError` when the same call may succeed later, `FatalError` when it never
will; a vendor's own errors stop at its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streams.errors import Reason

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

    def settle(self) -> None:
        """Have what was written so far made fast to search, some time after the return. Not for single items."""
        ...

    def describe(self) -> IndexInfo:
        """What the index holds; the count sees every acknowledged write."""
        ...


class Message(NamedTuple):
    """One message as Kafka delivered it. Header names may repeat; `timestamp` is in seconds since 1970, 0 = none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: float = 0.0


class Output(NamedTuple):
    """One message to send. `partition` None: by the hash of the key (murmur2, as Kafka's Java clients do)."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that can never be processed, with its reason."""

    message: Message
    reason: Reason
    detail: str


class Outbox(Protocol):
    """Sends messages to Kafka."""

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        """Send all and return their offsets when every one is acknowledged by all in-sync replicas.

        Args:
            produced: called when all are packed and queued, before the wait.

        Raises:
            TransientError: at least one was not acknowledged; any of them may have been written.
        """
        ...


class HistoryStore(Protocol):
    """Local copy of the changelog of histories, by partition. Keys and records are bytes.

    All methods raise `PartitionLost` for a partition that this process does not own.
    """

    def check(self, partitions: Collection[int]) -> None: ...
    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """One record, or None, for each key."""
        ...

    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        """Store records that the changelog holds at these offsets."""
        ...
