"""A Faust agent that works in batches and commits by itself: receive → batch → process → remember → commit.

Faust reads the topic and takes part in the group. Offsets are committed here, not by Faust, for two reasons: Faust
acknowledges messages that it skips while partitions move, and it commits up to the end of the first run of acknowledged
offsets, even if messages before that run were not processed. Here one batch at a time is processed, in the order of
the partition, and the offset after the last message of a finished batch is committed (step 6 of `streams/DELIVERY.md`).

No exception leaves an agent's loop, because Faust would continue after the message that caused it: transient errors are
retried (`streams.agents.retrying`); a defect ends the process with status 70, without commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import faust

from configs.errors import EXIT_DEFECT, FatalError
from streams.agents.assignment import Assignment
from streams.agents.batching import Batcher
from streams.agents.commits import Commits
from streams.agents.group_member import GroupMember
from streams.agents.pipeline import Pipeline, Work, without_pending
from streams.agents.retrying import Retrier, RetryPolicy
from streams.agents.state import AgentState
from streams.errors import RestartRequired
from streams.metrics import BatchMetrics
from streams.ports import BatchProcessor, PartitionHooks, Pending

_LOG = logging.getLogger("mindstream.agent")

_ACQUIRING = "acquiring partitions"
#: Seconds between two questions whether partitions need maintenance before its turn.
_MAINTENANCE_POLL_S = 0.25
#: Seconds that the current batch gets when the process stops. The process must exit within 5 s.
_STOP_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Settings of an agent.

    Attributes:
        batch_size: most messages in a batch.
        batch_wait_s: seconds to wait for a batch to fill; 0 = do not wait.
        look_ahead: start the next batch while the current one is finished. For processors that wait for other servers
            in between; others would only get smaller batches.
        retry: waits between tries after transient errors.
        commit_interval_s: seconds between commits.
        revoke_timeout_s: seconds that the current batch gets to finish when partitions are revoked.
        maintain_interval_s: seconds between two calls of `PartitionHooks.maintain`, while partitions are owned.
    """

    batch_size: int
    batch_wait_s: float
    look_ahead: bool
    retry: RetryPolicy
    commit_interval_s: float
    revoke_timeout_s: float
    maintain_interval_s: float = 5.0


class BatchAgent(Generic[Pending]):
    """Feeds batches of one topic to a processor, in a thread of its own.

    Args:
        app: the Faust app that it belongs to. The value of each of its messages is a list of runs
            (`streams.agents.consumer`).
        topic: the topic to read.
        processor: called in one thread, one batch at a time.
        hooks: called when partitions are assigned and revoked, and between batches.
        assignment: kept up to date by the agent, which also renews its lease before `BatchProcessor.finish`.
        options: settings.
        metrics: counters.
        exit_process: ends the process with a status; replaced in tests.
    """

    def __init__(
        self,
        app: faust.App,
        topic: str,
        processor: BatchProcessor[Pending],
        *,
        hooks: PartitionHooks,
        assignment: Assignment,
        options: AgentOptions,
        metrics: BatchMetrics,
        exit_process: Callable[[int], Any] = os._exit,
    ) -> None:
        self._member = GroupMember(app, topic)
        self._pipeline = Pipeline(processor)
        self._hooks = hooks
        self._assignment = assignment
        self._options = options
        self._metrics = metrics
        self._exit = exit_process
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping: asyncio.Task[None] | None = None
        self._commits = Commits(self._member.commit, assignment.prove, hooks.commit_metadata)
        self._retrier = Retrier(options.retry, assignment, metrics, exit_process, f"{topic}-batch")
        self._batcher = Batcher(
            lambda: assignment.generation,
            self._member.start_offset,
            self._member.oldest_offset,
            size=options.batch_size,
            wait_s=options.batch_wait_s,
            retry_interval_s=options.retry.longest_s,
            removed=metrics.removed.inc,
            exit_process=exit_process,
        )
        metrics.waiting.set_function(lambda: self.state().retrying_s)
        metrics.partitions.set_function(lambda: len(self.state().partitions or ()))

        # Raw bytes: decoding is ours, because a typed topic ends the agent at the first message it cannot decode.
        channel = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=False)
        app.agent(channel, name=f"{topic}-reader")(self._receive)
        app.task(self._run)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    @property
    def topic(self) -> str:
        """The topic that it reads."""
        return self._member.topic

    @property
    def stopped(self) -> bool:
        """True once `stop` has finished: the rest of the shutdown changes nothing that matters."""
        stopping = self._stopping
        return stopping is not None and stopping.done() and not stopping.cancelled() and stopping.exception() is None

    def state(self) -> AgentState:
        """Return a snapshot. May be called from any thread."""
        assignment, call = self._assignment, self._retrier.call
        call_s = 0.0 if call is None else time.monotonic() - call.started_at
        return AgentState(
            started=self._member.started,
            partitions=None if assignment.generation is None else frozenset(assignment.partitions),
            acquired=assignment.acquired,
            acquiring=call is not None and call.name == _ACQUIRING,
            retrying_s=call_s if call is not None and call.failing else 0.0,
            idle_count=self._batcher.idle_count,
            call=None if call is None else call.name,
            call_s=call_s,
        )

    async def between_batches(self, timeout_s: float) -> None:
        """Wait until no batch is in progress, for at most `timeout_s`: messages fetched earlier could only queue."""
        if not self._idle.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

    def begin_reading(self, partition: int, start: int, oldest: int) -> None:
        """Note that a partition is read from its committed offset `start` on, and that it begins at `oldest`."""
        self._batcher.begin(partition, start, oldest)

    def exit_on(self, error: RestartRequired | FatalError) -> None:
        """Exit without commit, because this process cannot continue."""
        self._retrier.exit_on(error)

    async def stop(self) -> None:
        """Finish the current batch, commit its offsets, and start no other. Call it before the consumer stops."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._drain(_STOP_TIMEOUT_S))
        await asyncio.shield(self._stopping)
        self._retrier.close()

    async def _run(self) -> None:
        await self._guarded(asyncio.gather(self._work(), self._commit_regularly(), self._maintain_regularly()))

    async def _guarded(self, work: Awaitable[Any]) -> None:
        """Exit on a defect: a task that died would leave a worker that only looks alive."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a defect: whatever it is, nothing may be committed past it
            _LOG.exception("the agent failed; exiting without commit")
            self._exit(EXIT_DEFECT)

    async def _receive(self, stream: Any) -> None:
        # After an exception, Faust would start the reader again, after the message that caused it.
        await self._guarded(self._read(stream))

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self._batcher.add(event.message.generation_id, event.message.value)

    async def _work(self) -> None:
        next_work: Work[Pending] | None = None
        while True:
            work, next_work = next_work or Work(await self._batcher.next_batch()), None
            batch, generation = work.batch, self._assignment.generation
            # Messages fetched before the partitions moved are discarded: they are read again from the committed offset.
            current = batch.generation is not None and batch.generation == generation
            if current and (batch.messages or batch.maintain) and not self._assignment.revoked:
                self._idle.clear()
                try:
                    next_work = await self._run_batch(work)
                finally:
                    self._idle.set()

    async def _run_batch(self, work: Work[Pending]) -> Work[Pending] | None:
        """Acquire new partitions or maintain old ones, then process one batch, until it is done or abandoned.

        Returns:
            The batch that was taken from the queue meanwhile.
        """
        assignment, batch = self._assignment, work.batch
        if not assignment.acquired:
            generation = assignment.generation
            if not await self._retrier.run(partial(self._hooks.acquire, list(assignment.partitions)), _ACQUIRING):
                return None
            assignment.set_acquired(generation)
            if assignment.revoked:
                return None  # the partitions are revoked again, and nothing of the batch was started
        elif batch.maintain:
            maintain = partial(self._hooks.maintain, list(assignment.partitions))
            if not await self._retrier.run(maintain, "maintaining partitions"):
                return None
        return await self._process(work) if batch.messages else None

    async def _process(self, work: Work[Pending]) -> Work[Pending] | None:
        """Start and finish a batch, and start the next one in between; returns the next one, if there is any."""
        options, messages = self._options, work.batch.messages
        started = time.monotonic()
        name = f"a batch of {len(messages)} messages"
        next_work = self._ready_work(options.batch_size)
        if not await self._retrier.run(partial(self._pipeline.search, work, next_work), name):
            return without_pending(next_work)
        # As late as possible: messages that have arrived meanwhile need not wait for the batch after the next.
        next_work = next_work or self._ready_work(options.batch_size if options.batch_wait_s else 1)
        renew_lease = partial(self._commits.renew_lease, messages)
        if not await self._retrier.run(partial(self._pipeline.finish, work, next_work), name, renew_lease):
            return without_pending(next_work)
        self._commits.done(messages)
        self._metrics.batch_size.observe(len(messages))
        self._metrics.batch_seconds.observe(time.monotonic() - started)
        self._metrics.last_progress.set_to_current_time()
        return next_work

    def _ready_work(self, min_messages: int) -> Work[Pending] | None:
        batch = self._batcher.ready_batch(min_messages) if self._options.look_ahead else None
        return None if batch is None else Work(batch)

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._options.commit_interval_s)
            await self._commit()

    async def _commit(self) -> None:
        await self._commits.commit()

    async def _maintain_regularly(self) -> None:
        interval_s = self._options.maintain_interval_s
        requested_at = time.monotonic()
        while True:
            await asyncio.sleep(min(interval_s, _MAINTENANCE_POLL_S))
            now = time.monotonic()
            due = now - requested_at >= interval_s or self._hooks.maintenance_due()
            if due and self._assignment.generation is not None:
                requested_at = now
                self._batcher.request_maintenance()

    async def _drain(self, timeout_s: float) -> None:
        """Let the current batch finish, commit, and start no other until partitions are assigned again."""
        deadline = time.monotonic() + timeout_s
        self._assignment.revoke()
        if not self._assignment.acquired:
            self._hooks.release()  # ends a restore that is in progress; the next one continues where it ended
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            name = self._retrier.call.name if self._retrier.call else "the current batch"
            _LOG.warning("%s was not finished within %.1f s; it will be repeated", name, timeout_s)
        self._assignment.unassign()
        self._hooks.release()
        try:
            await asyncio.wait_for(self._commit(), max(0.5, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            _LOG.warning("Kafka did not accept the commit within %.1f s; some messages will be repeated", timeout_s)
        self._commits.forget()

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._guarded(self._drain(self._options.revoke_timeout_s))

    async def _on_assigned(self, *args: Any, **_: Any) -> None:
        if self._stopping is not None:
            return
        _app, assigned = args
        self._assignment.assign(self._member.generation, [tp.partition for tp in assigned if tp.topic == self.topic])
        _LOG.info("%s: partitions %s", self.topic, self._assignment.partitions or "none")
        self._batcher.reset()
