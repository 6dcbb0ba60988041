"""Batches of the messages that the consumer fetches: none is skipped, and none of an older generation is processed.

Every message carries the generation of the consumer group in which it was fetched. When partitions move, what was
fetched before is discarded: it is read again, here or elsewhere, from the committed offset (`streams/DELIVERY.md`,
*Reading*).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.errors import EXIT_DEFECT, EXIT_TRANSIENT, TransientError
from streams.ports import Message

_LOG = logging.getLogger("mindstream.agent")

#: Batches that may wait in memory while one is processed; beyond that, Faust stops fetching.
_MAX_QUEUED_BATCHES = 4
#: Size of keys and values beyond which no further message may wait: large ones would fill the memory.
_MAX_QUEUED_BYTES = 64 * 2**20


class FetchedRun(NamedTuple):
    """Successive aiokafka records of one partition, and the consumer's position before and after them.

    The positions show whether any message was skipped. Offsets cannot: they may have gaps, left by compaction and by
    the markers of transactions.
    """

    begin: int
    end: int
    records: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that were fetched in one generation.

    Attributes:
        generation: of the consumer group; None = no partitions were owned.
        messages: in the order of their partitions; may be empty.
        maintain: maintain the partitions before this batch.
    """

    generation: int | None
    messages: Sequence[Message]
    maintain: bool


class _Received(NamedTuple):
    """A message and its generation; no message = wake up, partitions need maintenance."""

    generation: int | None
    message: Message | None


class _Queue(asyncio.Queue[_Received]):
    """A queue that is also bounded by the size of its messages. asyncio's own subclasses override the same methods."""

    _queued_bytes = 0

    def full(self) -> bool:
        return super().full() or self._queued_bytes >= _MAX_QUEUED_BYTES

    def _put(self, item: _Received) -> None:
        self._queued_bytes += _size_bytes(item.message)
        super()._put(item)

    def _get(self) -> _Received:
        item = super()._get()
        self._queued_bytes -= _size_bytes(item.message)
        return item


def _size_bytes(message: Message | None) -> int:
    return 0 if message is None else len(message.key or b"") + len(message.value or b"")


class Batcher:
    """The messages of one topic that are fetched and not processed yet. For the event loop only.

    Args:
        generation: returns the generation whose partitions this process owns now; None = it owns none.
        start_offset: returns the committed offset of a partition, where reading began; None = nothing was committed.
        oldest_offset: returns the offset of the oldest message of a partition that Kafka still has; raises
            TransientError.
        size: most messages in a batch.
        wait_s: seconds to wait for a batch to fill; 0 = do not wait.
        retry_interval_s: seconds until `oldest_offset` is called again after a failure.
        removed: counts messages that Kafka removed before they were read.
        exit_process: ends the process with a status.

    Attributes:
        idle_count: number of times that a batch was asked for and no message was queued.
    """

    def __init__(
        self,
        generation: Callable[[], int | None],
        start_offset: Callable[[int], int | None],
        oldest_offset: Callable[[int], Awaitable[int]],
        *,
        size: int,
        wait_s: float,
        retry_interval_s: float,
        removed: Callable[[int], object],
        exit_process: Callable[[int], Any],
    ) -> None:
        self.idle_count = 0
        self._generation = generation
        self._start_offset = start_offset
        self._oldest_offset = oldest_offset
        self._size = size
        self._wait_s = wait_s
        self._retry_interval_s = retry_interval_s
        self._removed = removed
        self._exit = exit_process
        self._next: dict[int, int] = {}  # partition → position after the last run received in this generation
        self._reported: dict[int, int] = {}  # partition → offset below which removed messages were reported
        self._maintain = False  # `Batch.maintain` of the next batch
        self._queue = _Queue(maxsize=_MAX_QUEUED_BATCHES * size)

    def reset(self) -> None:
        """Begin a generation: discard all queued messages, and have its partitions maintained at once."""
        self._next.clear()
        self._reported.clear()
        while not self._queue.empty():  # nothing of the new generation has arrived yet
            self._queue.get_nowait()
        self.request_maintenance()

    def begin(self, partition: int, start: int, oldest: int) -> None:
        """Report at once what Kafka removed between the committed offset `start` and the oldest message.

        Only that: the consumer may have fetched some of it before it was removed.
        """
        if partition not in self._next and oldest > start:
            self._report_removed(partition, start, oldest)

    def request_maintenance(self) -> None:
        """Have the partitions maintained before the next batch, or at once if no message waits."""
        self._maintain = True
        if self._queue.empty():
            self._queue.put_nowait(_Received(None, None))

    async def add(self, generation: int, runs: Sequence[FetchedRun]) -> None:
        """Queue the new messages of runs that were fetched in this generation; wait while the queue is full."""
        for run in runs:
            if generation == self._generation():  # otherwise it is read again, from the committed offset
                await self._add(generation, run)

    async def _add(self, generation: int, run: FetchedRun) -> None:
        partition = run.records[0].partition
        expected = self._next.get(partition)
        if expected is None and (start := self._start_offset(partition)) is not None:
            expected = start
            if run.begin < start:
                # The hooks refuse a topic whose offsets must not start again; they do before the first batch.
                text = "partition %d: Kafka has lost offset %d; reading again from offset %d"
                _LOG.warning(text, partition, start, run.begin)
                expected = run.begin
        if expected is not None and run.begin < expected:
            # The client goes back when its position is beyond the end. New messages will have the offsets of old ones.
            text = "partition %d: Kafka has lost offsets before %d; exiting without commit, to read it again"
            _LOG.critical(text, partition, expected)
            self._exit(EXIT_TRANSIENT)
            return
        if (expected is None or run.begin > expected) and not await self._nothing_skipped(run, partition, expected):
            return
        self._next[partition] = run.end
        for record in run.records:
            await self._queue.put(_Received(generation, _message(record)))

    async def _nothing_skipped(self, run: FetchedRun, partition: int, expected: int | None) -> bool:
        """Return False, and exit the process, if messages still in Kafka were skipped; a restart reads them again."""
        generation = self._generation()
        oldest = await self._ask_for_oldest(partition)
        if generation != self._generation():
            return False
        first = max(oldest, expected or 0)
        if run.begin > first:
            text = "the consumer skipped offsets %d to %d of partition %d; exiting without commit"
            _LOG.critical(text, first, run.begin - 1, partition)
            self._exit(EXIT_DEFECT)
            return False
        if expected is not None:
            self._report_removed(partition, expected, run.begin)
        return True

    def _report_removed(self, partition: int, begin: int, end: int) -> None:
        begin = max(begin, self._reported.get(partition, begin))
        if begin >= end:
            return
        self._reported[partition] = end
        text = "partition %d: Kafka removed offsets %d to %d before they were read; raise the topic's retention"
        _LOG.error(text, partition, begin, end - 1)
        self._removed(end - begin)

    async def _ask_for_oldest(self, partition: int) -> int:
        while True:
            try:
                return await self._oldest_offset(partition)
            except TransientError as error:
                _LOG.warning("%s; reading partition %d waits", error, partition)
                await asyncio.sleep(self._retry_interval_s)

    async def next_batch(self) -> Batch:
        """Wait for the next batch."""
        self.idle_count += self._queue.empty()
        received = self._fill([await self._queue.get()])
        deadline = time.monotonic() + self._wait_s
        while not self._full(received) and (left_s := deadline - time.monotonic()) > 0:
            try:
                received.append(await asyncio.wait_for(self._queue.get(), left_s))
            except asyncio.TimeoutError:
                break
            self._fill(received)
        return self._batch(received)

    def ready_batch(self, min_messages: int) -> Batch | None:
        """Return the next batch without waiting; None if fewer than `min_messages` are queued."""
        return self._batch(self._fill([])) if self._queue.qsize() >= min_messages else None

    def _fill(self, received: list[_Received]) -> list[_Received]:
        """Add queued messages, up to a full batch."""
        with suppress(asyncio.QueueEmpty):
            while not self._full(received):
                received.append(self._queue.get_nowait())
        return received

    def _full(self, received: Sequence[_Received]) -> bool:
        return len(received) >= self._size or bool(received and received[-1].message is None)

    def _batch(self, received: Sequence[_Received]) -> Batch:
        generation = self._generation()
        messages = [r.message for r in received if r.message is not None and r.generation == generation]
        maintain, self._maintain = self._maintain, False
        return Batch(generation, messages, maintain)


def _message(record: Any) -> Message:
    """Convert an aiokafka ConsumerRecord to a `Message`."""
    timestamp_s = record.timestamp / 1000
    headers = record.headers or ()
    return Message(record.topic, record.partition, record.offset, record.key, record.value, headers, timestamp_s)
