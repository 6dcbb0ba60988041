"""The click agent: histories on disk, the recall engine, and the agent that feeds it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from configs.schema import WorkerConfig
from streams.agents.assignment import Assignment
from streams.agents.faust_app import worker_app
from streams.clock import boot_clock
from streams.kafka.offsets import TopicOffsets, committed_topics
from streams.kafka.reading import first_messages, messages_at
from streams.kafka.topics import TopicIdentities, changelog_topic
from streams.messages.dead_letters import DeadLetterTopic
from streams.metrics import ClickMetrics, StoreMetrics
from streams.partitioning import KeyPartitions
from streams.ports import Message
from streams.processing.clicks import ClickProcessor, ClickTopics
from streams.recall.factory import build_engine, verified
from streams.recall.ports import ItemTable
from streams.state.changelog import Changelog
from streams.state.late_records import LateRecords
from streams.state.restore import Restorer
from streams.state.standby import Standby
from streams.state.store import PartitionStores
from streams.worker.parts import Blueprint, BuiltAgent
from streams.worker.preconditions import MAX_AWAITING, Preconditions, check_group_topics

_LOG = logging.getLogger("mindstream.clicks")


class HistoryHooks:
    """The `PartitionHooks` of the click agent: they keep the histories of the owned partitions up to date.

    Args:
        processor: answers users whose vectors have arrived.
        preconditions: checks that partitions can be acquired.
        restorer: keeps store and changelog consistent.
        stores: local histories.
        clicks_at: returns the clicks at these offsets by partition.
        index: the index that is searched.
        metrics: counters.
        standby: follows the partitions of other workers; None = no standby.
    """

    def __init__(
        self,
        processor: ClickProcessor,
        preconditions: Preconditions,
        restorer: Restorer,
        stores: PartitionStores,
        clicks_at: Callable[[Mapping[int, Collection[int]]], Sequence[Message]],
        index: ItemTable,
        metrics: ClickMetrics,
        standby: Standby | None,
    ) -> None:
        self._processor = processor
        self._preconditions = preconditions
        self._restorer = restorer
        self._stores = stores
        self._clicks_at = clicks_at
        self._index = index
        self._metrics = metrics
        self._acquire = self._restore if standby is None else standby.wrap_acquire(self._restore)

    def acquire(self, partitions: Collection[int]) -> None:
        """Restore the histories of the partitions. See `streams.ports.PartitionHooks.acquire`."""
        self._acquire(partitions)

    def maintain(self, partitions: Collection[int]) -> None:
        """Restore what other workers have written since, repair what they overwrote, answer users who waited."""
        self._preconditions.watch()
        self._index.check_identity()
        self._restorer.maintain(partitions)
        self._answer_repaired()
        self._processor.answer_awaiting()

    def maintenance_due(self) -> bool:
        """Return whether a user who waits for a vector is to be tried again."""
        return time.monotonic() >= self._processor.awaiting.next_due_at

    def commit_metadata(self, partition: int) -> str:
        """Return what the next owner of the partition requires (`streams.worker.preconditions`)."""
        awaiting = self._processor.awaiting.offsets(partition, MAX_AWAITING)
        return self._preconditions.commit_metadata(self._stores.reached(partition), awaiting)

    def release(self) -> None:
        """Give up all partitions; a call that still uses the stores raises PartitionLost."""
        self._stores.disown()

    def _restore(self, partitions: Collection[int]) -> None:
        self._processor.awaiting.keep(partitions)
        commits = self._preconditions.check(partitions)
        for partition, metadata in commits.items():
            self._stores.reach(partition, metadata.reached)
        self._metrics.restored.inc(self._restorer.acquire(partitions))
        self._answer_repaired()
        awaiting = {partition: metadata.awaiting for partition, metadata in commits.items() if metadata.awaiting}
        if awaiting:
            self._processor.answer_again(self._clicks(awaiting), unanswered=True)

    def _answer_repaired(self) -> None:
        """Have users answered again whose newer record was overwritten: so was their newer recommendation."""
        if self._restorer.repaired:
            self._processor.answer_again(self._clicks(self._restorer.repaired), unanswered=False)
            self._restorer.repaired.clear()

    def _clicks(self, offsets: Mapping[int, Collection[int]]) -> Sequence[Message]:
        """Return the clicks at these offsets, and log how many Kafka does not have any more."""
        found = self._clicks_at(offsets)
        missing = sum(map(len, offsets.values())) - len(found)
        if missing:
            _LOG.warning("%d clicks that were to be answered again are not in Kafka any more: they are not", missing)
        return found


def build_click_agent(blueprint: Blueprint) -> BuiltAgent:
    """Build the click agent in a Faust app of its own.

    Raises:
        FatalError: a part cannot work as configured.
        TransientError: Kafka is unavailable.
    """
    config, artifact, parts = blueprint.config, blueprint.artifact, blueprint.parts
    topics = config.topics
    metrics = ClickMetrics(blueprint.registry)
    stores = parts.stores(config.worker.data_dir / "history")
    changelog = Changelog(config.kafka, changelog_topic(config.worker.group))
    preconditions = _preconditions(config, changelog)
    stores.bind(preconditions.changelog_id)
    # Half a session: the last heartbeat may have been that long before.
    limit_s = config.worker.session_timeout / 2
    producer = LateRecords(blueprint.record_producer(), changelog.topic, limit_s, boot_clock)
    index = verified(config.recall, artifact, blueprint.index, metrics.short_searches.inc)
    processor = parts.click_processor(
        build_engine(config.recall, artifact, index),
        stores,
        producer,
        topics=ClickTopics(
            KeyPartitions(topics.partitioner, topics.partitions),
            topics.recommendations,
            changelog.topic,
            DeadLetterTopic(topics.dead_letters, topics.max_message_bytes),
        ),
        model_version=artifact.model_version,
        history_length=config.history.length,
        metrics=metrics,
    )
    store_metrics = StoreMetrics(blueprint.registry, stores.damaged)
    restorer = Restorer(changelog, stores, producer, store_metrics.foreign.inc)
    standby = None
    if config.worker.standby:
        standby_stores = parts.stores(config.worker.data_dir / "history")
        standby = Standby(
            Changelog(config.kafka, changelog.topic),
            standby_stores,
            range(topics.partitions),
            store_metrics.foreign.inc,
        )
    clicks_at = partial(messages_at, config.kafka, topics.clicks)
    hooks = HistoryHooks(processor, preconditions, restorer, stores, clicks_at, blueprint.index, metrics, standby)
    options = blueprint.options(batch_size=config.batch.size, batch_wait_s=config.batch.wait, look_ahead=True)
    app = worker_app(
        config,
        f"{config.worker.group}-clicks",
        config.batch.size,
        lambda app: parts.agent(
            app, topics.clicks, processor, hooks=hooks, assignment=Assignment(), options=options, metrics=metrics
        ),
        gate=lambda: blueprint.catalogue.await_filled(config.worker.retry_budget),
    )
    return BuiltAgent(app, metrics, topics.partitions, lambda: restorer.applied)


def _preconditions(config: WorkerConfig, changelog: Changelog) -> Preconditions:
    """Build the checks of partitions that are acquired. Raises as `build_click_agent`."""
    kafka, clicks, group = config.kafka, config.topics.clicks, f"{config.worker.group}-clicks"
    check_group_topics(committed_topics(kafka, group), group, clicks)
    return Preconditions(
        TopicIdentities(kafka, [clicks, changelog.topic]),
        TopicOffsets(kafka, clicks, group),
        changelog,
        partial(first_messages, kafka, clicks),
    )
