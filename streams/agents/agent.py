"""A Faust agent that works in batches and commits by itself: receive → batch → process → remember → commit.

Faust reads the topic and keeps the partitions; the offsets are committed here, not by Faust, because it acknowledges
messages that it skips while partitions move, and because it takes the first run of acknowledged offsets for the
processed ones, whatever lies before them. Here one batch at a time is processed, in the order of the partition, and
what is committed is the offset behind the last message of a finished batch: everything before it is done.

When partitions are taken away, the batch in hand is finished (or given up, if it is waiting for Milvus), what was
done is committed, and everything queued is forgotten: the next owner reads it again from the committed offset.

Faults: `TransientError` holds the batch back and tries again with growing waits; when the budget is used up the
process leaves with status 75, without commit, so that its supervisor restarts it. Any other exception is a defect:
the process leaves with status 70, without commit. No exception ever leaves an agent's loop, where Faust would go on
behind the message that it concerned. What neither returns nor fails is the matter of `streams.worker.watchdog`.

What cannot tell old messages from new by itself is processed under a lease (`streams.agents.commits`): when the last
proof that the partitions are ours is older, the offset of the batch in hand is committed before it is processed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import faust
from faust.types import TP

from configs.errors import EXIT_CONFIG, EXIT_DEFECT, EXIT_TRANSIENT, FatalError, TransientError
from streams.agents.batching import Batch, Batcher
from streams.agents.commits import Commits
from streams.agents.retrying import RetryPolicy
from streams.agents.state import AgentState
from streams.errors import PartitionLost
from streams.metrics import BatchMetrics
from streams.ports import Message

_LOG = logging.getLogger("mindstream.agent")

_TAKING_OVER = "taking over partitions"
#: Seconds that the batch in hand gets when the process stops, well inside the 5 s until it must be gone.
_STOP_PATIENCE = 2.0


class BatchAgent:
    """Feeds batches of one topic to `process`, in a thread of its own.

    Args:
        app: the Faust app that it belongs to. The value of each of its messages is a list of runs
        (`streams.agents.consumer`). topic: topic to read.
        process: processes a batch; called in one thread, one batch at a time. It may be called again with the same
            messages, so it must be idempotent. Its second argument is the batch that comes next if nothing goes
            wrong, or empty; neither `take_over` nor `tend` is called between the two.
        prepare: called before `process` with the same batch; does what changes nothing and can wait for other servers.
            Its second argument is the batch that comes next, if a full one is there already; `process` is told of what
            is there by then. None: nothing to prepare, and `process` is never told of what comes next.
        take_over: called in that thread with the partitions that were assigned, before their first batch.
        let_go: called when partitions are taken away, after the batch in hand; from the event loop.
        tend: called in that thread between batches, every `tend_interval` seconds while partitions are owned.
        size: most messages in a batch.
        wait: seconds to wait for a batch to fill; 0 = take what is there.
        retry: what to do about transient faults.
        commit_interval: seconds between commits.
        revoke_patience: seconds that the batch in hand gets when partitions are taken away.
        lease: seconds, less than the session, for which a commit proves that the partitions are ours; asked for before
            `process`. None: `process` does no harm to partitions of others.
        metrics: counters.
        leave: ends the process with a status; replaced in tests.
    """

    def __init__(
        self,
        app: faust.App,
        topic: str,
        process: Callable[[Sequence[Message], Sequence[Message]], None],
        *,
        prepare: Callable[[Sequence[Message], Sequence[Message]], None] | None = None,
        take_over: Callable[[Collection[int]], Any] = lambda _partitions: None,
        let_go: Callable[[], Any] = lambda: None,
        tend: Callable[[Collection[int]], Any] = lambda _partitions: None,
        tend_interval: float = 5.0,
        size: int,
        wait: float,
        retry: RetryPolicy,
        commit_interval: float,
        revoke_patience: float,
        lease: float | None = None,
        metrics: BatchMetrics,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self.topic = topic
        #: Whether `stop` has come to its end: the rest of the shutdown changes nothing that counts.
        self.stopped = False
        self._app = app
        self._process = process
        self._prepare = prepare
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
        self._idle = asyncio.Event()
        self._give_up = asyncio.Event()
        self._generation: int | None = None  # of the consumer group; None = no partitions, or stopping
        self._owned: list[int] = []
        self._stopping: asyncio.Task[None] | None = None
        self._doing: tuple[str, float] | None = None  # the call in hand, and since when
        self._failing = False  # the call in hand has failed before
        self._taken_over: int | None = None  # generation whose partitions are ready
        self._in_hand: int | None = None  # generation of the call in hand
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{topic}-batch")
        self._idle.set()
        # Faust makes its consumer when it starts.
        self._commits = Commits(lambda offsets: self._consumer()._commit(self._places(offsets)), lease)
        self._batcher = Batcher(
            lambda: self._generation,
            lambda partition: self._consumer().sought(TP(topic, partition)),
            lambda partition: self._consumer().oldest(TP(topic, partition)),
            size=size,
            wait=wait,
            patience=retry.longest,
            leave=leave,
        )
        metrics.waiting.set_function(lambda: self.state().retrying)
        metrics.partitions.set_function(lambda: len(self.state().owned or ()))

        # Raw bytes: decoding is ours, because a typed topic ends the agent at the first message it cannot decode.
        channel = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=False)
        app.agent(channel, name=f"{topic}-reader")(self._receive)
        app.task(self._go)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    def state(self) -> AgentState:
        """A look from any thread."""
        generation, doing = self._generation, self._doing
        seconds = 0.0 if doing is None else time.monotonic() - doing[1]
        return AgentState(
            owned=None if generation is None else frozenset(self._owned),
            restored=generation is not None and self._taken_over == generation,
            restoring=doing is not None and doing[0] == _TAKING_OVER,
            retrying=seconds if self._failing else 0.0,
            emptied=self._batcher.emptied,
            doing=None if doing is None else doing[0],
            seconds=seconds,
        )

    async def between_batches(self, patience: float) -> None:
        """Wait until no batch is in hand, for so many seconds at most: until then messages could only queue up."""
        if not self._idle.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), patience)

    def require_lease(self) -> None:
        """To be called by `process` directly before it changes what a newer owner may have changed.

        Raises:
            TransientError: the lease ran out since `process` was called, or the partitions are gone.
        """
        if self._generation != self._in_hand or not self._commits.leased():
            raise TransientError("Kafka", "this process stood still; its partitions may belong to another")

    def refuse(self, error: FatalError) -> None:
        """Leave, because the configuration cannot work any more."""
        _LOG.critical("%s; leaving without commit", error)
        self._leave(EXIT_CONFIG)

    async def stop(self) -> None:
        """Finish the batch in hand, commit what is done, and take nothing more. Call before the consumer stops."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._drain(_STOP_PATIENCE))
        await asyncio.shield(self._stopping)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.stopped = True

    async def _go(self) -> None:
        await self._guarded(asyncio.gather(self._work(), self._commit_regularly(), self._tend_regularly()))

    async def _guarded(self, work: Awaitable[Any]) -> None:
        """A defect ends the process: a task that died would leave a worker that only looks alive."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a defect: whatever it is, nothing may be committed past it
            _LOG.exception("the agent failed; leaving without commit")
            self._leave(EXIT_DEFECT)

    async def _receive(self, stream: Any) -> None:
        # Faust would start the reader again behind the message that it failed at.
        await self._guarded(self._read(stream))

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self._batcher.take(event.message.generation_id, event.message.value)

    async def _work(self) -> None:
        following: Batch | None = None
        while True:
            batch, following = following or await self._batcher.batch(), None
            # What was fetched before the partitions moved is forgotten: it comes again from the committed offset.
            ours = batch.generation is not None and batch.generation == self._generation
            if ours and (batch.messages or batch.tend) and not self._give_up.is_set():
                self._idle.clear()
                try:
                    following = await self._run(batch)
                finally:
                    self._idle.set()

    async def _run(self, batch: Batch) -> Batch | None:
        """Take over new partitions or look after old ones, then process one batch, until it is done or given up.

        Returns the batch that was taken from the queue meanwhile.
        """
        generation = self._generation
        if self._taken_over != generation:
            if not await self._attempt(self._take_over, list(self._owned), _TAKING_OVER):
                return None
            self._taken_over = generation
            if self._give_up.is_set():
                return None  # they are going again, and nothing of the batch was begun
        elif batch.tend and not await self._attempt(self._tend, list(self._owned), "looking after partitions"):
            return None
        started = time.monotonic()
        messages, following = batch.messages, None
        if not messages:
            return None
        what = f"a batch of {len(messages)} messages"
        if self._prepare is not None:
            following = self._batcher.at_once(self._size)
            if not await self._attempt(partial(self._prepare, messages), _announced(following), what):
                return following
            # As late as possible: what has come meanwhile need not wait for the batch after the next.
            following = following or self._batcher.at_once(self._size if self._wait else 1)
        if not await self._attempt(partial(self._process, messages), _announced(following), what, messages):
            return following
        self._commits.done(messages)
        self._metrics.batch_size.observe(len(messages))
        self._metrics.batch_seconds.observe(time.monotonic() - started)
        self._metrics.last_progress.set_to_current_time()
        return following

    async def _attempt(
        self, call: Callable[[Any], Any], argument: Any, what: str, leased: Sequence[Message] = ()
    ) -> bool:
        """Call in the batch thread until it succeeds: True, or False when the partitions are gone, also if they have
        come back: then their messages come again, and offsets of the old ones are no longer ours to commit.

        Under a lease for the partitions of the messages that `leased` holds.
        """
        loop = asyncio.get_running_loop()
        generation = self._in_hand = self._generation
        started = time.monotonic()
        waits = self._retry.waits(random.Random())
        self._doing = what, started
        try:
            while True:
                try:
                    if leased and not self._commits.leased():
                        await self._commits.renew_lease(leased)
                        if self._give_up.is_set() or generation != self._generation:
                            return False
                    await loop.run_in_executor(self._thread, call, argument)
                    return generation == self._generation
                except TransientError as error:
                    self._metrics.retries.inc()
                    self._failing = True
                    tried = time.monotonic() - started
                    if tried > self._retry.budget:
                        _LOG.critical("%s; tried for %.0f s, leaving without commit", error, tried)
                        self._leave(EXIT_TRANSIENT)
                        return False
                    wait = next(waits)
                    _LOG.warning("%s; %s waits, trying again in %.1f s", error, what, wait)
                    # The partitions may have come back meanwhile: then these messages come again, too.
                    if await self._given_up_within(wait) or generation != self._generation:
                        _LOG.warning("gave up %s; the next owner of the partitions does it", what)
                        return False
                except PartitionLost as error:
                    if generation == self._generation and not self._give_up.is_set():
                        raise  # a defect: partitions are let go in `_drain` alone
                    _LOG.warning("%s; gave up %s", error, what)
                    return False
                except FatalError as error:
                    self.refuse(error)
                    return False
        finally:
            self._doing, self._failing = None, False

    async def _given_up_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._give_up.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._commit_interval)
            await self._commits.commit()

    async def _tend_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._tend_interval)
            if self._generation is not None:
                self._batcher.remind()

    def _consumer(self) -> Any:
        # `streams.agents.consumer`'s. `commit` of Faust's takes no offsets; `_commit` does, and is what it calls with
        # its own.
        return self._app.consumer

    def _places(self, offsets: Mapping[int, int]) -> Mapping[TP, int]:
        return {TP(self.topic, partition): offset for partition, offset in offsets.items()}

    async def _drain(self, patience: float) -> None:
        """Let the batch in hand finish, commit, and take nothing more until partitions are assigned again."""
        deadline = time.monotonic() + patience
        self._give_up.set()
        if self._taken_over != self._generation:
            self._let_go()  # restoring goes on with the next owner, where it ends here
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except asyncio.TimeoutError:
            what = self._doing[0] if self._doing else "the batch in hand"
            _LOG.warning("%s was not finished within %.1f s; it will be repeated", what, patience)
        self._generation = None
        self._let_go()
        try:
            await asyncio.wait_for(self._commits.commit(), max(0.5, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            _LOG.warning("Kafka did not take the commit within %.1f s; some messages will be repeated", patience)
        self._commits.forget()

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._guarded(self._drain(self._revoke_patience))

    async def _on_assigned(self, *args: Any, **_: Any) -> None:
        if self._stopping is not None:
            return
        _app, assigned = args
        self._owned = sorted(tp.partition for tp in assigned if tp.topic == self.topic)
        _LOG.info("%s: partitions %s", self.topic, self._owned or "none")
        self._generation = self._app.consumer_generation_id
        self._taken_over = None
        self._give_up.clear()
        self._batcher.begin()


def _announced(following: Batch | None) -> Sequence[Message]:
    """What a batch is told of the next one: nothing if partitions are looked after between them."""
    return () if following is None or following.tend else following.messages
