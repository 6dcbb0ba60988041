"""Build what writes: the producers of clicks and items, and what publishes and removes all items."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from configs.schema import ServiceConfig
from model.artifact import Artifact
from model.serving.norms import Norms
from streams.kafka.offsets import TopicOffsets
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import read_to_end
from streams.kafka.topics import items_group
from streams.partitioning import KeyPartitions
from streams.recall.ports import ItemTable
from streams.service.bulk import BulkItems
from streams.service.items_topic import ItemsTopic, KafkaItemProgress
from streams.service.recallable import RecallableItems
from streams.service.shared_producer import SharedProducer
from streams.service.threads import ThreadCalls
from streams.service.writing import ClickMessages, ItemMessages


@dataclass(frozen=True, slots=True)
class Writes:
    """The parts that the routes that write use.

    Attributes:
        clicks, items: make messages.
        click_producer, item_producer: write them. Two, so that neither kind waits for the other.
        recallable: waits until searches find an item.
        bulk: publishes and removes all items.
    """

    clicks: ClickMessages
    items: ItemMessages
    click_producer: SharedProducer
    item_producer: SharedProducer
    recallable: RecallableItems
    bulk: BulkItems

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[None]:
        """End with the service: what waits is written if Kafka answers in time."""
        try:
            yield
        finally:
            producers = (self.click_producer, self.item_producer)
            await asyncio.gather(*(asyncio.to_thread(producer.close) for producer in producers))


def build_writes(
    config: ServiceConfig, artifact: Artifact, index: ItemTable, milvus: ThreadCalls, stopping: threading.Event
) -> Writes:
    """Return what the routes that write use. It connects to Kafka when it is first used.

    Args:
        config, artifact, index: settings, model, and the model's collection.
        milvus: threads in which the collection is read.
        stopping: set when the process has to end.
    """
    topics, service = config.topics, config.service
    largest = topics.max_message_bytes

    def shared_producer() -> SharedProducer:
        producer = KafkaRecordProducer(config.kafka, largest, topics.partitioner, service.write_timeout)
        return SharedProducer(producer, service.write_timeout)

    click_partitions = KeyPartitions(topics.partitioner, topics.partitions)
    item_partitions = KeyPartitions(topics.partitioner, topics.item_partitions)
    return Writes(
        ClickMessages(topics.clicks, click_partitions, largest),
        ItemMessages(
            topics.items,
            item_partitions,
            largest,
            artifact.model_version,
            artifact.dim,
            Norms.from_artifact(artifact),
        ),
        shared_producer(),
        shared_producer(),
        RecallableItems(index, milvus, service.recallable_timeout),
        _bulk_items(config, artifact, index, stopping),
    )


def _bulk_items(config: ServiceConfig, artifact: Artifact, index: ItemTable, stopping: threading.Event) -> BulkItems:
    topics, timeout_s = config.topics, config.service.insert_timeout

    def topic() -> ItemsTopic:
        # The group is that of the collection that the service has opened: it must be the one that exists now.
        index.check_identity()
        group = items_group(config.worker.group, artifact.model_version, index.identity)
        return ItemsTopic(
            topics.items,
            KeyPartitions(topics.partitioner, topics.item_partitions),
            lambda: (received.message for received in read_to_end(config.kafka, topics.items)),
            KafkaRecordProducer(config.kafka, topics.max_message_bytes, topics.partitioner),
            KafkaItemProgress(TopicOffsets(config.kafka, topics.items, group), topics.item_partitions),
        )

    norms = Norms.from_artifact(artifact)
    return BulkItems(artifact, norms, index, topic, topics.item_partitions, timeout_s, stopping)
