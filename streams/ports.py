"""The seams to the outside world, in our own terms. Each has a real implementation and one in memory; contract tests
run on both. Implementations raise `TransientError` when the same call may succeed later, `FatalError` when it never
will; a vendor's own errors stop at its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streams.errors import Reason


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


class RecordProducer(Protocol):
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
