"""A Faust agent that works in batches and commits by itself: receive → batch → process → remember → commit.

Faust reads the topic and keeps the partitions; the offsets are committed here, not by Faust, because it acknowledges
messages that it skips while partitions move, and because it takes the first run of acknowledged offsets for the
processed ones, whatever lies before them. Here one batch at a time is processed, in the order of the partition, and
what is committed is the offset behind the last message of a finished batch: everything before it is done.

When partitions are taken away, the batch in hand is finished (or given up, if it is waiting for Milvus), what was
done is committed, and everything queued is forgotten: the next owner reads it again from the committed offset.

Faults: `TransientError` holds the batch back and tries again with growing waits; when the budget is used up the
process leaves with status 75, without commit, so that its supervisor restarts it. Any other exception is a defect:
the process leaves with status 70, without commit. No exception ever leaves an agent's loop, where Faust would commit
past it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import faust
from faust.types import TP

from streams.errors import FatalError, PartitionLost, TransientError
from streams.metrics import BatchMetrics
from streams.ports import Message

_LOG = logging.getLogger("mindstream.agent")

#: Exit status: a transient fault outlasted its budget (EX_TEMPFAIL); restart the process.
EXIT_TRANSIENT = 75
#: Exit status: a defect of this software (EX_SOFTWARE); the log has the traceback.
EXIT_DEFECT = 70
#: Exit status: the configuration cannot work (EX_CONFIG); the message says what mends it.
EXIT_CONFIG = 78
#: Batches that may wait in memory while one is processed; beyond that, Faust stops fetching.
_QUEUED_BATCHES = 4
#: Seconds that the batch in hand gets when the process stops, well inside the 5 s until it must be gone.
_STOP_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits between tries, in seconds: `first`, doubled up to `longest`, with jitter; `budget` for all of them."""

    first: float
    longest: float
    budget: float

    def waits(self, rng: random.Random) -> Any:
        """The waits, without end. Full jitter on the upper half, so that workers do not return all at once."""
        wait = self.first
        while True:
            yield wait * rng.uniform(0.5, 1.0)
            wait = min(self.longest, 2 * wait)


@dataclass(frozen=True, slots=True)
class _Received:
    """A message and the generation of the consumer group in which it was fetched; None = look after the partitions."""

    generation: int | None
    message: Message | None


class BatchAgent:
    """Feeds batches of one topic to `process`, in a thread of its own.

    Args:
        app: the Faust app that it belongs to.
        topic: topic to read.
        process: processes a batch; called in one thread, one batch at a time. It may be called again with the same
            messages, so it must be idempotent.
        take_over: called in that thread with the partitions that were assigned, before their first batch.
        let_go: called when partitions are taken away, after the batch in hand; from the event loop.
        tend: called in that thread between batches, every `tend_interval` seconds while partitions are owned.
        size: most messages in a batch.
        wait: seconds to wait for a batch to fill; 0 = take what is there.
        retry: what to do about transient faults.
        commit_interval: seconds between commits.
        revoke_patience: seconds that the batch in hand gets when partitions are taken away.
        metrics: counters.
        leave: ends the process with a status; replaced in tests.
    """

    def __init__(
        self,
        app: faust.App,
        topic: str,
        process: Callable[[Sequence[Message]], None],
        *,
        take_over: Callable[[Collection[int]], Any] = lambda _partitions: None,
        let_go: Callable[[], Any] = lambda: None,
        tend: Callable[[Collection[int]], Any] = lambda _partitions: None,
        tend_interval: float = 5.0,
        size: int,
        wait: float,
        retry: RetryPolicy,
        commit_interval: float,
        revoke_patience: float,
        metrics: BatchMetrics,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self._app = app
        self._topic = topic
        self._process = process
        self._take_over = take_over
        self._let_go = let_go
        self._tend = tend
        self._tend_interval = tend_interval
        self._size = size
        self._wait = wait
        self._retry = retry
        self._commit_interval = commit_interval
        self._revoke_patience = revoke_patience
        self._metrics = metrics
        self._leave = leave
        self._queue: asyncio.Queue[_Received] | None = None  # made in the event loop
        self._idle = asyncio.Event()
        self._give_up = asyncio.Event()
        self._generation: int | None = None  # of the consumer group; None = no partitions, or stopping
        self._owned: list[int] = []
        self._taken_over: int | None = None  # generation whose partitions are ready
        self._first: dict[tuple[int | None, int], int] = {}  # generation, partition → first offset received
        self._newest: dict[tuple[int | None, int], int] = {}  # generation, partition → newest offset received
        self._done: dict[TP, int] = {}  # offset to commit: one behind the last processed message
        self._committed: dict[TP, int] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{topic}-batch")
        self._idle.set()

        # Raw bytes: decoding is ours, because a typed topic ends the agent at the first message it cannot decode.
        channel = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=False)
        app.agent(channel, name=f"{topic}-reader")(self._receive)
        app.task(self._work)
        app.task(self._commit_regularly)
        app.task(self._tend_regularly)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    async def stop(self) -> None:
        """Finish the batch in hand, commit what is done, and take nothing more. Call before the consumer stops."""
        await self._drain(_STOP_PATIENCE)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _receive(self, stream: Any) -> None:
        async for event in stream.noack().events():
            m = event.message
            place = (m.generation_id, m.partition)
            if m.offset < self._first.setdefault(place, m.offset):
                # The consumer began behind the committed offset: what lies between was passed over.
                _LOG.critical("partition %d went back to offset %d; leaving without commit", m.partition, m.offset)
                self._leave(EXIT_DEFECT)
            if m.offset > self._newest.get(place, -1):  # Faust may deliver the newest message twice
                self._newest[place] = m.offset
                message = Message(m.topic, m.partition, m.offset, m.key, m.value)
                await self._messages().put(_Received(m.generation_id, message))

    def _messages(self) -> asyncio.Queue[_Received]:
        if self._queue is None:
            self._queue = asyncio.Queue(maxsize=_QUEUED_BATCHES * self._size)
        return self._queue

    async def _work(self) -> None:
        try:
            while True:
                received = await self._next_batch()
                # What was fetched before the partitions moved is forgotten: it comes again from the committed offset.
                current = [r.message for r in received if r.generation == self._generation]
                if current and not self._give_up.is_set():
                    self._idle.clear()
                    try:
                        messages = [message for message in current if message is not None]
                        await self._run(messages, tend=len(messages) < len(current))
                    finally:
                        self._idle.set()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a defect: whatever it is, nothing may be committed past it
            _LOG.exception("the agent failed; leaving without commit")
            self._leave(EXIT_DEFECT)

    async def _next_batch(self) -> list[_Received]:
        queue = self._messages()
        batch = [await queue.get()]
        deadline = time.monotonic() + self._wait
        while len(batch) < self._size and batch[-1].message is not None:
            try:
                batch.append(queue.get_nowait())
            except asyncio.QueueEmpty:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                try:
                    batch.append(await asyncio.wait_for(queue.get(), left))
                except asyncio.TimeoutError:
                    break
        return batch

    async def _run(self, batch: Sequence[Message], tend: bool) -> None:
        """Take over new partitions or look after old ones, then process one batch, until it is done or given up."""
        generation = self._generation
        if self._taken_over != generation:
            if not await self._attempt(self._take_over, list(self._owned), "taking over partitions"):
                return
            self._taken_over = generation
        elif tend and not await self._attempt(self._tend, list(self._owned), "looking after partitions"):
            return
        started = time.monotonic()
        if not batch or not await self._attempt(self._process, batch, f"a batch of {len(batch)} messages"):
            return
        if generation != self._generation:
            return  # done, but too late: its offsets are no longer ours to commit
        for message in batch:
            self._done[TP(message.topic, message.partition)] = message.offset + 1
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_seconds.observe(time.monotonic() - started)
        self._metrics.last_progress.set_to_current_time()

    async def _attempt(self, call: Callable[[Any], Any], argument: Any, what: str) -> bool:
        """Call in the batch thread until it succeeds: True, or False when the partitions are gone."""
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        waits = self._retry.waits(random.Random())
        while True:
            try:
                await loop.run_in_executor(self._thread, call, argument)
                return True
            except TransientError as error:
                self._metrics.retries.inc()
                tried = time.monotonic() - started
                if tried > self._retry.budget:
                    _LOG.critical("%s; tried for %.0f s, leaving without commit", error, tried)
                    self._leave(EXIT_TRANSIENT)
                    return False
                wait = next(waits)
                _LOG.warning("%s; %s waits, trying again in %.1f s", error, what, wait)
                if await self._given_up_within(wait):
                    _LOG.warning("gave up %s; the next owner of the partitions does it", what)
                    return False
            except PartitionLost as error:
                _LOG.warning("%s; gave up %s", error, what)
                return False
            except FatalError as error:
                _LOG.critical("%s; leaving without commit", error)
                self._leave(EXIT_CONFIG)
                return False

    async def _given_up_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._give_up.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._commit_interval)
            await self._commit()

    async def _tend_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._tend_interval)
            if self._generation is not None:
                with suppress(asyncio.QueueFull):  # under a backlog, the next time
                    self._messages().put_nowait(_Received(self._generation, None))

    async def _commit(self) -> None:
        """Commit what is done. A failed commit costs repeats, never clicks."""
        due = {tp: offset for tp, offset in self._done.items() if self._committed.get(tp) != offset}
        if due and await self._consumer()._commit(due):
            self._committed.update(due)

    def _consumer(self) -> Any:
        # `commit` of Faust's consumer takes no offsets; `_commit` does, and is what it calls with its own.
        return self._app.consumer

    async def _drain(self, patience: float) -> None:
        """Let the batch in hand finish, commit, and take nothing more until partitions are assigned again."""
        deadline = time.monotonic() + patience
        self._give_up.set()
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except asyncio.TimeoutError:
            _LOG.warning("the batch in hand was not finished within %.1f s; it will be repeated", patience)
        self._generation = None
        self._let_go()
        try:
            await asyncio.wait_for(self._commit(), max(0.5, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            _LOG.warning("Kafka did not take the commit within %.1f s; some messages will be repeated", patience)
        self._done.clear()
        self._committed.clear()

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._drain(self._revoke_patience)

    async def _on_assigned(self, *args: Any, **_: Any) -> None:
        _app, assigned = args
        self._owned = sorted(tp.partition for tp in assigned if tp.topic == self._topic)
        _LOG.info("%s: partitions %s", self._topic, self._owned or "none")
        self._generation = self._app.consumer_generation_id
        self._first.clear()
        self._newest.clear()
        self._give_up.clear()
        queue = self._messages()
        while not queue.empty():  # nothing of the new generation has arrived yet
            queue.get_nowait()
        queue.put_nowait(_Received(self._generation, None))  # take over at once, not with the first message
