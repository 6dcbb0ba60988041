"""Faust's consumer with its faults fixed: it delivers runs of messages, skips none, and lets the agent commit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import faust
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]
from aiokafka.errors import ConsumerStoppedError, KafkaError, TopicAuthorizationFailedError  # type: ignore[import-untyped]
from aiokafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from configs.errors import FatalError, TransientError
from streams.agents.agent import BatchAgent
from streams.agents.batching import FetchedRun
from streams.agents.header_names import tolerate_header_names
from streams.errors import RestartRequired
from streams.ports import Position

_LOG = logging.getLogger("mindstream.worker")

#: Seconds for which messages may stay in the consumer while a batch is in progress.
_HOLD_BACK_S = 0.02
#: Milliseconds for which a broker may hold back its answer to a fetch until there are messages. The Kafka client has
#: only one fetch under way for each broker: one for partitions without messages holds up those that have some.
_FETCH_MAX_WAIT_MS = 100
#: Seconds between two checks whether the group has assigned partitions again.
_REASSIGNMENT_POLL_S = 0.05


class _Thread(AIOKafkaConsumerThread):
    """The thread of the Kafka client. Nothing is taken out of the client while the flow is stopped.

    Faust lets a fetch that waits for messages continue while partitions move, and may then discard its messages,
    although the client's position has moved past them: they would never be processed.
    """

    def __init__(self, consumer: _Consumer, **options: Any) -> None:
        super().__init__(consumer, **options)
        #: State of a partition → its position before and after the client skipped offsets that hold no messages.
        self._moved: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        client = super()._create_worker_consumer(transport)
        client._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # Faust passes 1500, and no setting changes it
        return client

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: Collection[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:
        """Return runs by partition; {} when none came in time, or the flow was stopped."""
        fetcher, subscriptions = consumer._fetcher, consumer._subscription
        deadline = time.monotonic() + (timeout or 0)
        while self.consumer.flow_active:
            if consumer._closed or fetcher._closed:
                raise ConsumerStoppedError
            if subscriptions.reassignment_in_progress:
                await asyncio.sleep(_REASSIGNMENT_POLL_S)
                break
            # No other task of this thread's loop runs between here and the end of `fetched_records`.
            assignment = subscriptions.subscription.assignment
            begins = {tp: self._begin(assignment.state_value(tp)) for tp in assignment.tps}
            with subscriptions.fetch_context():
                taken = await fetcher.fetched_records(active_partitions, timeout=0, max_records=max_records)
            ends = {tp: assignment.state_value(tp)._position for tp in assignment.tps}
            for tp in begins.keys() - taken.keys():
                self._moved[assignment.state_value(tp)] = begins[tp], ends[tp]
            if taken:
                return {tp: FetchedRun(begins[tp], ends[tp], records) for tp, records in taken.items()}
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                waiter.cancel()
                break
            waiter.result()  # raises the errors that Kafka returned
        return {}

    def _begin(self, state: Any) -> Any:
        """Return the position at which the next run of a partition begins; None = not known yet."""
        begin, position = self._moved.get(state, (None, None))
        return begin if position == state._position else state._position


class _Consumer(Consumer):
    """Faust's consumer, fixed in four places.

    Faust's own delivers messages before it is back at the committed offset, crashes when Kafka refuses a commit, and
    crashes when it looks for stalled partitions while they move (`streams.worker.watchdog` does that instead). It also
    spends some 0.3 ms of CPU time on each message. So this one delivers runs, with some thousand messages if the Kafka
    client has them, between batches or a little later. Faust gets one message for all of them: the last one, with all
    runs as its value.
    """

    def _new_consumer_thread(self) -> _Thread:
        tolerate_header_names()
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        agent = cast("WorkerApp", self.app).batch_agent
        await agent.between_batches(_HOLD_BACK_S)
        try:
            taken, active = await super()._wait_next_records(timeout)
        except TopicAuthorizationFailedError as refused:
            agent.exit_on(FatalError(f"Kafka refuses: {refused}; grant this user its rights (configs/access.md)"))
            raise
        self._read_offset.clear()  # Faust drops messages by it; the batcher drops exactly those that were read before
        if not taken:
            return {}, active
        runs = cast("list[FetchedRun]", list(taken.values()))
        last = runs[-1].records[-1]
        return {TP(last.topic, last.partition): [runs]}, active

    def _to_message(self, tp: TP, runs: Sequence[FetchedRun]) -> ConsumerMessage:
        message = super()._to_message(tp, runs[-1].records[-1])
        message.value = cast("Any", runs)
        return message

    async def perform_seek(self) -> None:
        self.stop_flow()  # both callers resume it afterwards
        generation = self.app.consumer_generation_id
        await super().perform_seek()
        # Faust does not seek in partitions without a commit: messages that were fetched and discarded while the
        # partitions moved would be lost.
        fresh = [tp for tp in self.assignment() if not self._committed_offset.get(tp)]
        if fresh:
            await self._thread.seek_to_beginning(*[self._new_topicpartition(t.topic, t.partition) for t in fresh])
        # Not awaited: if a partition has no leader, the others need not wait for it.
        self.add_future(self._report_removed(generation))

    async def _report_removed(self, generation: int) -> None:
        """Tell the agent where partitions begin: their next message may arrive long after others were removed."""
        starts = {tp: offset for tp in self.assignment() if (offset := self._committed_offset.get(tp))}
        topic_partitions = {self._new_topicpartition(tp.topic, tp.partition): tp for tp in starts}
        try:
            found = await self._thread.earliest_offsets(*topic_partitions) if starts else {}
        except (KafkaError, ConsumerStoppedError) as error:
            _LOG.warning("Kafka does not say where partitions begin: %r", error)
            return
        if generation == self.app.consumer_generation_id:
            agent = cast("WorkerApp", self.app).batch_agent
            for topic_partition, oldest in found.items():
                tp = topic_partitions[topic_partition]
                agent.begin_reading(tp.partition, starts[tp], int(oldest))

    def start_offset(self, tp: TP) -> int | None:
        """Return the committed offset, where reading began; None = nothing was committed."""
        return self._committed_offset.get(tp)

    async def oldest_offset(self, tp: TP) -> int:
        """Return the offset of the oldest message that Kafka still has.

        Raises:
            TransientError: Kafka did not respond.
        """
        topic_partition = self._new_topicpartition(tp.topic, tp.partition)
        try:
            return int((await self._thread.earliest_offsets(topic_partition))[topic_partition])
        except KafkaError as error:
            raise TransientError("Kafka", repr(error)) from None

    async def verify_all_partitions_active(self) -> None:
        """Do nothing: Faust's search for stalled partitions crashes while they move."""

    async def commit_positions(self, positions: Mapping[TP, Position]) -> bool:
        """Commit, and return whether Kafka accepted it. Faust's own methods take no metadata."""
        return bool(await self._thread.call_thread(self._try_commit, positions))

    async def _try_commit(self, positions: Mapping[TP, Position]) -> bool:
        """Commit, in the consumer's thread. A commit that fails costs repeats at worst, and is retried."""
        owned = self._thread.assignment()
        due = {
            ensure_aiokafka_TP(tp): OffsetAndMetadata(*position) for tp, position in positions.items() if tp in owned
        }
        if not due:
            return False
        client = self._thread._ensure_consumer()
        if client._coordinator.generation < 0:
            # The group has expelled this member. Kafka would treat it as a client without a group, whose commits
            # count while the group has no members.
            _LOG.warning("no commit: this process is not a member of its group now")
            return False
        try:
            await client.commit(due)
        except KafkaError as error:
            _LOG.warning("Kafka did not accept the commit: %r", error)
            return False
        return True


class _Transport(Transport):
    Consumer = _Consumer


async def open_gate() -> None:
    """A gate that lets the app start at once."""


class WorkerApp(faust.App):
    """A Faust app with the fixed consumer. It stops its agent before the consumer.

    Args:
        name: name of the app and of its consumer group.
        agent: builds the app's agent.
        gate: waits until the app may start and join its consumer group; raises RestartRequired or FatalError if this
            process cannot.
        options: Faust's settings.
    """

    def __init__(
        self,
        name: str,
        *,
        agent: Callable[[WorkerApp], BatchAgent[Any]],
        gate: Callable[[], Awaitable[None]] = open_gate,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._gate = gate
        self.batch_agent = agent(self)

    async def start(self) -> None:
        """Start when the gate is open, unless the app is stopped before. Apps that start later wait, too."""
        try:
            waited = await self.wait(self._gate())
        except (RestartRequired, FatalError) as error:
            self.batch_agent.exit_on(error)
            raise
        if not waited.stopped:
            await super().start()

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    async def on_stop(self) -> None:
        await self.batch_agent.stop()
        await super().on_stop()
