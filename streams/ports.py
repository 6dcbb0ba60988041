"""The protocols between the streaming side and the outside world, in its own terms.

Implementations raise `TransientError` when the same call may succeed later and `FatalError` when it never will; a
vendor's own errors stop at its adapter. Each protocol has a real implementation and one in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from streams.errors import Reason, RefusedData


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
    """One message to send. Without a `partition`, the hash of the key decides (`topics.partitioner`)."""

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


class Position(NamedTuple):
    """Offset to read next, as a consumer group commits it, and a text that Kafka keeps beside it."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaLag:
    """Distance of a local copy from the end of its topic.

    Attributes:
        messages: at most this many messages are to be read, by Kafka's last answer; compaction leaves gaps.
        age_s: everything that Kafka had this many seconds ago is in the copy; None = not known yet. About a second
            while Kafka answers; it grows while it does not.
        caught_up: since it was opened, or made again, the copy has held everything that Kafka had at some moment.
    """

    messages: int
    age_s: float | None
    caught_up: bool


class RecordProducer(Protocol):
    """Sends messages to Kafka, and waits for their acknowledgement."""

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        """Send all messages and return their offsets when all in-sync replicas have acknowledged every one.

        Args:
            outputs: messages to send.
            produced: called when all messages are packed and queued, before the wait.

        Raises:
            TransientError: at least one was not acknowledged; any of them may have been written.
        """
        ...


class HistoryStore(Protocol):
    """A local copy of the changelog of histories, by partition. Keys and records are bytes.

    All methods raise `PartitionLost` for a partition that this process does not own.
    """

    def check(self, partitions: Collection[int]) -> None:
        """Check that this process owns the partitions."""
        ...

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one record, or None, for each key."""
        ...

    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        """Store records that the changelog holds at these offsets."""
        ...


class PendingBatch(Protocol):
    """A batch that was started and is not finished. It has changed nothing outside the process."""

    def wait(self) -> None:
        """Wait for the answers of other servers that `BatchProcessor.finish` needs.

        Raises:
            TransientError: a server did not respond; start the batch again.
            RefusedData: see `BatchProcessor.start`.
        """
        ...


Pending = TypeVar("Pending", bound=PendingBatch)


class BatchProcessor(Protocol[Pending]):
    """Processes the batches of one topic, one after the other. Called in one thread.

    A batch may be started again, with the same messages, whenever one of its calls failed.
    """

    def start(self, messages: Sequence[Message], after: Pending | None) -> Pending:
        """Start a batch: do the part of the work that changes nothing outside the process.

        Args:
            messages: the batch, in the order of its partitions.
            after: the pending batch before this one, which must be finished first; None = there is none. If it is
                never finished, the caller must discard the result of this call.

        Raises:
            TransientError: a server did not respond; call again with the same messages.
            PartitionLost: another worker owns a partition of the batch now; abandon the batch.
            RefusedData: a server refuses the data of at least one message; call again with fewer messages.
        """
        ...

    def finish(self, pending: Pending) -> None:
        """Finish a batch: its effects are acknowledged when this returns, and its offsets may be committed.

        Raises:
            TransientError, PartitionLost, RefusedData: as `start`.
        """
        ...

    def refuse(self, message: Message, error: RefusedData) -> None:
        """Make a dead letter of a message whose data a server refuses.

        Raises:
            TransientError, PartitionLost: as `start`.
        """
        ...


class PartitionHooks(Protocol):
    """Calls that an agent makes when partitions are assigned to this process and revoked from it."""

    def acquire(self, partitions: Collection[int]) -> None:
        """Prepare to process these partitions, and no others; called in the batch thread before their first batch.

        Raises:
            TransientError: a server did not respond; call again.
            PartitionLost: the partitions were revoked meanwhile.
            FatalError: the partitions cannot be processed as configured.
            RestartRequired: only a new process can process them.
        """
        ...

    def maintain(self, partitions: Collection[int]) -> None:
        """Do periodic work between two batches, in the batch thread. Raises the same errors as `acquire`."""
        ...

    def maintenance_due(self) -> bool:
        """Return whether `maintain` should be called before its turn; called from the event loop."""
        ...

    def commit_metadata(self, partition: int) -> str:
        """Return the text to commit with the offset after a batch; called when the batch is done, from the event loop.

        Kafka keeps at most 4096 bytes (`offset.metadata.max.bytes`); "" = none.
        """
        ...

    def release(self) -> None:
        """Give up all partitions; called from the event loop, also while `acquire` or a batch is in progress."""
        ...
