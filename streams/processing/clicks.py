"""The processing of a batch of clicks: steps 1 to 5 of the delivery guarantee (`streams/DELIVERY.md`).

    1. decode       unreadable messages, and those in a wrong partition, become dead letters
    2. read         the users' histories from the local store; clicks at or below a fence are not applied again
    3. recall       one encoding and one search for all users of the batch; nothing has been changed so far
    4. send         dead letters, history records and recommendations; wait until all in-sync replicas have all of them
    5. store        write the records to the local store, with their offsets in the changelog
    6. commit       the agent commits the offsets after the batch (`streams.agents.agent`)

`start` takes steps 1 to 3 up to the search, `finish` the rest. The next batch may be started on the histories that a
pending batch will leave: Milvus searches for it while the answers to the pending one are merged, packed and sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from configs.errors import TransientError
from model.serving.merge import Candidates
from streams.errors import RefusedData
from streams.messages.dead_letters import DeadLetterTopic
from streams.metrics import ClickMetrics, Stopwatch
from streams.partitioning import KeyPartitions
from streams.ports import DeadLetter, HistoryStore, Message, Output, RecordProducer
from streams.processing.awaited import AwaitedVectors, AwaitingUsers
from streams.processing.click_batch import ClickBatch, Overlay, UserClicks, apply, decode
from streams.processing.dead_letters import DeadLetters
from streams.recall.engine import PendingRecall, RecallEngine

_LOG = logging.getLogger("mindstream.clicks")

#: Seconds between two tries to answer a user for whom Milvus finds nothing, until it has rebuilt its graph.
_MISSED_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class ClickTopics:
    """The topics that a click agent writes to, and the partitions of the one that it reads."""

    clicks: KeyPartitions
    recommendations: str
    changelog: str
    dead_letters: DeadLetterTopic


@dataclass(frozen=True, slots=True, eq=False)
class PendingClicks:
    """A batch of clicks after step 2, whose search is under way."""

    batch: ClickBatch
    recall: PendingRecall
    metrics: ClickMetrics

    def wait(self) -> None:
        """See `streams.ports.PendingBatch.wait`."""
        self.recall.wait(self.metrics.stopwatch())


class ClickProcessor:
    """The `BatchProcessor` of clicks. Not thread-safe: one batch at a time.

    Args:
        engine: recalls candidates.
        store: local histories.
        producer: sends to Kafka.
        topics: the agent's topics.
        model_version: the version to name in every recommendation.
        history_length: clicks kept for each user.
        metrics: counters.
        clock: seconds since 1970.

    Attributes:
        awaiting: users whose clicks wait for vectors.
    """

    def __init__(
        self,
        engine: RecallEngine,
        store: HistoryStore,
        producer: RecordProducer,
        *,
        topics: ClickTopics,
        model_version: str,
        history_length: int,
        metrics: ClickMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.awaiting = AwaitingUsers()
        self._engine = engine
        self._store = store
        self._producer = producer
        self._topics = topics
        self._dead_letters = DeadLetters(topics.dead_letters, metrics)
        self._model_version = model_version
        self._history_length = history_length
        self._metrics = metrics
        self._clock = clock

    def start(self, messages: Sequence[Message], after: PendingClicks | None = None) -> PendingClicks:
        """Take steps 1 and 2, and send the search of step 3. See `streams.ports.BatchProcessor.start`."""
        stopwatch = self._metrics.stopwatch()
        users, dead_letters = decode(messages, self._topics.clicks)  # 1
        stopwatch("decode")
        return self._start(users, dead_letters, {} if after is None else after.batch.overlay(), stopwatch)

    def _start(
        self, users: Sequence[UserClicks], dead_letters: Sequence[DeadLetter], overlay: Overlay, stopwatch: Stopwatch
    ) -> PendingClicks:
        updates = apply(users, self._store, overlay, self._history_length)  # 2
        stopwatch("read")
        recall = self._engine.start([update.history.items for update in updates], stopwatch)  # 3
        return PendingClicks(ClickBatch(updates, dead_letters), recall, self._metrics)

    def finish(self, pending: PendingClicks) -> None:
        """Wait for the search of step 3, then take steps 4 and 5. See `streams.ports.BatchProcessor.finish`."""
        candidates = self._send(pending)
        self._count(pending.batch, candidates, len(pending.recall.missed))
        self.awaiting.add([update.user for update in pending.batch.updates], pending.recall.unknown, time.monotonic())
        self._answer_missed_later(pending)

    def answer_awaiting(self) -> None:
        """Answer the users again whose awaited vectors have arrived. Between two batches, in the batch thread.

        While a server is unavailable they wait on: a worker without clicks must not end because of them.

        Raises:
            PartitionLost: see `streams.ports.BatchProcessor`.
        """
        now = time.monotonic()
        due = self.awaiting.due(now)
        try:
            if due:
                self._answer(due, now)
        except TransientError as error:
            _LOG.warning("%s; %d users who wait for vectors are tried again later", error, len(due))
            self.awaiting.postpone(due, time.monotonic())

    def _answer(self, due: Sequence[AwaitedVectors], now: float) -> None:
        awaited = frozenset().union(*(waiting.items for waiting in due))
        known = self._engine.known(awaited) if awaited else set()
        ready = [waiting.user for waiting in due if not waiting.items or not known.isdisjoint(waiting.items)]
        # A tombstone may have removed a history meanwhile: the click would be applied again.
        ready = [u.user for u in apply(ready, self._store, {}, self._history_length) if not u.applied]
        if not ready:
            self._metrics.vectors_missing.inc(self.awaiting.tried(due, known, now))
            return
        pending = self._start(ready, (), {}, self._metrics.stopwatch())
        self._send(pending)
        self._metrics.answered_later.inc(len(ready) - len(pending.recall.missed))
        self._metrics.vectors_missing.inc(self.awaiting.tried(due, known, now))
        self._answer_missed_later(pending)

    def _answer_missed_later(self, pending: PendingClicks) -> None:
        """Have users answered later for whom Milvus has found nothing, although it finds items for others."""
        missed = [pending.batch.updates[row].user for row in pending.recall.missed]
        if missed:
            _LOG.warning(
                "Milvus finds nothing for %d users; they are tried again in %.0f s", len(missed), _MISSED_WAIT_S
            )
            self.awaiting.add_again(missed, time.monotonic(), _MISSED_WAIT_S)

    def answer_again(self, clicks: Sequence[Message], *, unanswered: bool) -> None:
        """Have the users of these clicks answered again, in a moment. In the batch thread.

        Args:
            clicks: messages that are in the users' histories.
            unanswered: items of theirs had no vector when this was last tried; otherwise, the users are answered once,
                in any case.
        """
        users, _ = decode(clicks, self._topics.clicks)
        if unanswered:
            # The item without a vector may be that of an older click than the newest one.
            updates = apply(users, self._store, {}, self._history_length)
            users = [
                replace(u.user, clicks=[*((-1, item) for item in u.history.items.tolist()), *u.user.clicks])
                for u in updates
            ]
            self.awaiting.add(users, {item for user in users for _, item in user.clicks}, time.monotonic())
        else:
            self.awaiting.add_again(users, time.monotonic())

    def _send(self, pending: PendingClicks) -> Sequence[Candidates | None]:
        """Wait for the search, take steps 4 and 5, and return the candidates."""
        stopwatch = self._metrics.stopwatch()
        batch = pending.batch
        candidates = pending.recall.finish(stopwatch)
        now = self._clock()
        records = batch.records(self._topics.changelog)
        topic, top_k = self._topics.recommendations, self._engine.top_k
        answers = batch.recommendations(topic, candidates, top_k, self._model_version, now)
        dead_letters = self._dead_letters.outputs(batch.dead_letters, now)
        self._store.check({update.user.partition for update in batch.updates})  # the search may have taken long
        stopwatch("pack")
        offsets = self._producer.send([*records, *answers, *dead_letters], lambda: stopwatch("produce"))  # 4
        stopwatch("acknowledge")
        self._write(records, offsets[: len(records)])  # 5
        stopwatch("store")
        lengths = [len(found.item_ids) for found in candidates if found is not None]
        self._metrics.short_recommendations.inc(sum(length < top_k for length in lengths))
        self._metrics.empty_recommendations.inc(lengths.count(0))
        return candidates

    def refuse(self, message: Message, error: RefusedData) -> None:
        """Send the click to the dead-letter topic. See `streams.ports.BatchProcessor.refuse`."""
        dead_letter = DeadLetter(message, "refused", error.detail)
        self._producer.send(self._dead_letters.outputs([dead_letter], self._clock()))
        self._dead_letters.count([dead_letter])

    def _write(self, records: Sequence[Output], offsets: Sequence[int]) -> None:
        by_partition: dict[int, tuple[dict[bytes, bytes], list[int]]] = {}
        for record, offset in zip(records, offsets, strict=True):
            assert record.partition is not None and record.key is not None and record.value is not None
            new, sent_at = by_partition.setdefault(record.partition, ({}, []))
            new[record.key] = record.value
            sent_at.append(offset)
        for partition, (new, sent_at) in by_partition.items():
            self._store.write(partition, new, sent_at)

    def _count(self, batch: ClickBatch, candidates: Sequence[Candidates | None], missed: int) -> None:
        received = batch.received
        now = self._clock()
        self._metrics.clicks.inc(received)
        self._metrics.repeats.inc(received - batch.applied)
        self._dead_letters.count(batch.dead_letters)
        self._metrics.unusable.inc(sum(found is None for found in candidates) - missed)
        for update, found in zip(batch.updates, candidates, strict=True):
            if found is not None:
                self._metrics.recommendations.inc()
                self._metrics.latency.observe(max(0.0, now - update.user.newest.ts))
