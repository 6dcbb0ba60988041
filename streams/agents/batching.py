"""From what Kafka's client hands over to batches: nothing passed over, nothing of another generation.

Every message carries the generation of the consumer group in which it was fetched. When partitions move, what was
fetched before is forgotten: it comes again, here or elsewhere, from the committed offset.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.errors import EXIT_DEFECT, TransientError
from streams.ports import Message

_LOG = logging.getLogger("mindstream.agent")

#: Batches that may wait in memory while one is processed; beyond that, Faust stops fetching.
_QUEUED_BATCHES = 4
#: Bytes of keys and values beyond which no further message may wait: large ones would fill the memory.
_QUEUED_BYTES = 64 * 2**20


class FetchedRun(NamedTuple):
    """Successive messages of one partition, aiokafka's, and the consumer's position before and behind them.

    The positions tell whether anything was passed over: offsets alone may have gaps.
    """

    begin: int
    end: int
    records: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one generation; `tend`: look after the partitions first."""

    generation: int | None
    messages: Sequence[Message]
    tend: bool


class _Received(NamedTuple):
    """A message and its generation; None = nothing, it only wakes who waits for messages."""

    generation: int | None
    message: Message | None


class _Queue(asyncio.Queue[_Received]):
    """Bounded by the messages' bytes, too. `_put` and `_get` are what asyncio's own queues override."""

    _bytes = 0

    def full(self) -> bool:
        return super().full() or self._bytes >= _QUEUED_BYTES

    def _put(self, item: _Received) -> None:
        self._bytes += _size(item.message)
        super()._put(item)

    def _get(self) -> _Received:
        item = super()._get()
        self._bytes -= _size(item.message)
        return item


def _size(message: Message | None) -> int:
    return 0 if message is None else len(message.key or b"") + len(message.value or b"")


class Batcher:
    """The messages of one topic that are received and not processed yet. For the event loop alone.

    Args:
        generation: the one whose partitions this process owns now; None = it owns none.
        sought: the committed offset of a partition that reading began at; None = it began at the beginning.
        oldest: offset of the oldest message of a partition that Kafka still has; raises TransientError.
        size: most messages in a batch.
        wait: seconds to wait for a batch to fill; 0 = take what is there.
        patience: seconds before Kafka is asked again that did not answer.
        leave: ends the process with a status.
    """

    def __init__(
        self,
        generation: Callable[[], int | None],
        sought: Callable[[int], int | None],
        oldest: Callable[[int], Awaitable[int]],
        *,
        size: int,
        wait: float,
        patience: float,
        leave: Callable[[int], Any],
    ) -> None:
        #: How often nothing was left to do.
        self.emptied = 0
        self._generation = generation
        self._sought = sought
        self._oldest = oldest
        self._size = size
        self._wait = wait
        self._patience = patience
        self._leave = leave
        self._next: dict[int, int] = {}  # partition → position behind what was received in this generation
        self._tend = False  # the next batch says so
        self._queue = _Queue(maxsize=_QUEUED_BATCHES * size)

    def begin(self) -> None:
        """A generation begins: forget what was received, and have its partitions looked after at once."""
        self._next.clear()
        while not self._queue.empty():  # nothing of the new generation has arrived yet
            self._queue.get_nowait()
        self.remind()

    def remind(self) -> None:
        """Have the partitions looked after before the next batch, or at once if nothing waits."""
        self._tend = True
        if self._queue.empty():
            self._queue.put_nowait(_Received(None, None))

    async def take(self, generation: int, runs: Sequence[FetchedRun]) -> None:
        """Queue what is new of runs that were fetched in this generation; wait while there is no room."""
        for run in runs:
            if generation == self._generation():  # else it comes again, from the committed offset
                await self._take(generation, run)

    async def _take(self, generation: int, run: FetchedRun) -> None:
        partition = run.records[0].partition
        expected = self._next.get(partition)
        if expected is None and (sought := self._sought(partition)) is not None:
            expected = min(sought, run.begin)  # a topic that was made anew begins before
        if (expected is None or run.begin > expected) and not await self._follows(run, partition, expected):
            return
        self._next[partition] = max(run.end, expected or 0)
        for record in run.records:
            if expected is None or record.offset >= expected:
                await self._queue.put(_Received(generation, _message(record)))

    async def _follows(self, run: FetchedRun, partition: int, expected: int | None) -> bool:
        """Whether nothing that Kafka still has was passed over; if it was, the process leaves: it is read again."""
        generation = self._generation()
        oldest = await self._ask_for_oldest(partition)
        if generation != self._generation():
            return False
        first = max(oldest, expected or 0)
        if run.begin > first:
            text = "the consumer passed over offsets %d to %d of partition %d; leaving without commit"
            _LOG.critical(text, first, run.begin - 1, partition)
            self._leave(EXIT_DEFECT)
            return False
        if expected is not None:
            text = "partition %d: Kafka removed offsets %d to %d before they were read; the topic keeps too little"
            _LOG.error(text, partition, expected, run.begin - 1)
        return True

    async def _ask_for_oldest(self, partition: int) -> int:
        while True:
            try:
                return await self._oldest(partition)
            except TransientError as error:
                _LOG.warning("%s; reading partition %d waits", error, partition)
                await asyncio.sleep(self._patience)

    async def batch(self) -> Batch:
        """The next batch; waits for one."""
        self.emptied += self._queue.empty()
        received = self._fill([await self._queue.get()])
        deadline = time.monotonic() + self._wait
        while not self._full(received) and (left := deadline - time.monotonic()) > 0:
            try:
                received.append(await asyncio.wait_for(self._queue.get(), left))
            except asyncio.TimeoutError:
                break
            self._fill(received)
        return self._batch(received)

    def at_once(self, least: int) -> Batch | None:
        """The next batch, if so many messages are there."""
        return self._batch(self._fill([])) if self._queue.qsize() >= least else None

    def _fill(self, received: list[_Received]) -> list[_Received]:
        """Add what is there, up to a full batch."""
        with suppress(asyncio.QueueEmpty):
            while not self._full(received):
                received.append(self._queue.get_nowait())
        return received

    def _full(self, received: Sequence[_Received]) -> bool:
        return len(received) >= self._size or bool(received and received[-1].message is None)

    def _batch(self, received: Sequence[_Received]) -> Batch:
        generation = self._generation()
        messages = [r.message for r in received if r.message is not None and r.generation == generation]
        tend, self._tend = self._tend, False
        return Batch(generation, messages, tend)


def _message(record: Any) -> Message:
    """From aiokafka's."""
    seconds = record.timestamp / 1000
    headers = record.headers or ()
    return Message(record.topic, record.partition, record.offset, record.key, record.value, headers, seconds)
