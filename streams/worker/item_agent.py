"""The item agent: upserts and deletes in Milvus, under a lease for the partitions; compares rows and topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from configs.errors import FatalError, TransientError
from model.serving.norms import Norms
from streams.agents.assignment import Assignment
from streams.agents.faust_app import worker_app
from streams.kafka.topics import ITEM_PARTITIONS_REMEDY, TopicIdentities, TopicIdentity, check_items, items_group
from streams.messages.dead_letters import DeadLetterTopic
from streams.metrics import ItemMetrics
from streams.partitioning import KeyPartitions
from streams.processing.item_decoder import ItemDecoder
from streams.processing.item_repair import ItemRepairer
from streams.processing.items import ItemProcessor
from streams.recall.ports import ItemTable
from streams.worker.item_comparer import ItemComparer, ItemTopic
from streams.worker.parts import Blueprint, BuiltAgent

#: Seconds between two requests for the topic's identity.
_WATCH_INTERVAL_S = 30.0


class ItemTopicWatch:
    """Checks that the topic is the one that the rows name, and that no partitions were added. For one thread.

    Args:
        topic: name of the topic.
        identify: returns its identity.
        partitions: the configured number of partitions.
        index: the index whose rows name offsets of the topic.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        topic: str,
        identify: Callable[[], TopicIdentity],
        partitions: int,
        index: ItemTable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._identify = identify
        self._partitions = partitions
        self._index = index
        self._clock = clock
        self._due_at = clock()

    def check(self, *, at_once: bool = False) -> None:
        """Check it, once in a while.

        Args:
            at_once: check it now.

        Raises:
            TransientError: a server is unavailable.
            FatalError: the topic is another one, or has another number of partitions.
        """
        if not at_once and self._clock() < self._due_at:
            return
        found = self._identify()
        if found.partitions != self._partitions:
            raise FatalError(
                f"topic {self._topic} has {found.partitions} partitions, and the configuration {self._partitions}: "
                f"{ITEM_PARTITIONS_REMEDY}"
            )
        self._index.bind(self._topic, found.id)
        self._due_at = self._clock() + _WATCH_INTERVAL_S


class ItemHooks:
    """The `PartitionHooks` of the item agent: they keep rows equal to the topic, and the index sealed.

    Args:
        index: the index.
        processor: seals the index.
        comparer: finds rows that differ from the topic.
        repairer: repairs them.
        watch: checks the topic.
    """

    def __init__(
        self,
        index: ItemTable,
        processor: ItemProcessor,
        comparer: ItemComparer,
        repairer: ItemRepairer,
        watch: ItemTopicWatch,
    ) -> None:
        self._index = index
        self._processor = processor
        self._comparer = comparer
        self._repairer = repairer
        self._watch = watch

    def acquire(self, partitions: Collection[int]) -> None:
        """Begin to compare the partitions, in the background."""
        self._comparer.own(partitions)

    def maintain(self, partitions: Collection[int]) -> None:  # noqa: ARG002 - the comparer knows them
        """Check that collection and topic are the same as before, repair rows, and seal the index when that is due."""
        self._index.check_identity()
        suspects = self._comparer.found
        try:
            # Before repairs: compared with another topic of this name, right rows seem to have no message.
            self._watch.check(at_once=suspects is not None)
        except TransientError:
            suspects = None  # the next batch says so
        if suspects is not None:
            self._repairer.repair(suspects)
            self._comparer.repaired()
        self._processor.seal_when_due()

    def maintenance_due(self) -> bool:
        """Return False: repairs and sealing wait for their turn, so that new items do not wait for them."""
        return False

    def commit_metadata(self, partition: int) -> str:  # noqa: ARG002
        """Return "": reading an item again changes nothing."""
        return ""

    def release(self) -> None:
        """Stop comparing."""
        self._comparer.own(())


def build_item_agent(blueprint: Blueprint) -> BuiltAgent:
    """Build the item agent in a Faust app of its own.

    Raises:
        FatalError: Kafka refuses this client, or topic and collection do not fit each other.
        TransientError: Kafka is unavailable.
    """
    config, artifact = blueprint.config, blueprint.artifact
    topics = config.topics
    metrics = ItemMetrics(blueprint.registry)
    index = blueprint.index
    check_items(config.kafka, topics.items)
    identities = TopicIdentities(config.kafka, [topics.items])
    watch = ItemTopicWatch(topics.items, lambda: identities.now()[topics.items], topics.item_partitions, index)
    watch.check()
    group = items_group(config.worker.group, artifact.model_version, index.identity)
    decoder = ItemDecoder(
        artifact.model_version,
        artifact.dim,
        Norms.from_artifact(artifact),
        KeyPartitions(topics.partitioner, topics.item_partitions),
    )
    # Half a session: an accepted commit proves ownership for the rest of the session only.
    assignment = Assignment(lease_s=config.worker.session_timeout / 2)
    processor = ItemProcessor(
        index,
        blueprint.record_producer(),
        dead_letters=DeadLetterTopic(topics.dead_letters, topics.max_message_bytes),
        decoder=decoder,
        require_lease=assignment.require_lease,
        metrics=metrics,
    )
    comparer = ItemComparer(
        ItemTopic(config.kafka, topics.items, group, index, artifact.model_version),
        # A former owner notices within its session that it is none, and its last request takes two timeouts at most.
        settle_s=config.worker.session_timeout + 2 * config.milvus.timeout,
        interval_s=config.items.compare_interval,
        completed=metrics.compared.set_to_current_time,
    )
    repairer = ItemRepairer(index, decoder.decode, processor.removals, metrics)
    hooks = ItemHooks(index, processor, comparer, repairer, watch)
    options = blueprint.options(
        batch_size=config.items.batch_size, batch_wait_s=config.items.batch_wait, look_ahead=False
    )
    app = worker_app(
        config,
        group,
        config.items.batch_size,
        lambda app: blueprint.parts.agent(
            app,
            topics.items,
            processor,
            hooks=hooks,
            assignment=assignment,
            options=options,
            metrics=metrics,
        ),
    )
    return BuiltAgent(app, metrics, topics.item_partitions, lambda: 0)
