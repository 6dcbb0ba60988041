"""Topics in memory for what is written over HTTP, that of items with the real item processor behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry

from configs.schema import Partitioner, ServiceConfig
from model.arrays import FloatMatrix, IdVector
from model.artifact import Artifact
from model.serving.norms import Norms
from streams.messages.dead_letters import DeadLetterTopic
from streams.messages.items import Item, encode_item
from streams.metrics import ItemMetrics
from streams.partitioning import KeyPartitions
from streams.ports import Message, Output
from streams.processing.item_decoder import ItemDecoder
from streams.processing.items import ItemProcessor, PendingItems
from streams.processing.memory import MemoryRecordProducer
from streams.recall.memory import MemoryIndex
from streams.recall.ports import ItemTable
from streams.service.bulk import BulkItems
from streams.service.items_topic import ItemsTopic
from streams.service.recallable import RecallableItems
from streams.service.shared_producer import SharedProducer
from streams.service.threads import ThreadCalls
from streams.service.write_parts import Writes
from streams.service.writing import ClickMessages, ItemMessages

VERSION, PARTITIONS = "m1", 3
NORMS = Norms(0.99, 1.01, unit=True)


@dataclass
class Source:
    """Items 1 to n of two dimensions."""

    item_ids: IdVector
    item_vectors: FloatMatrix
    model_version: str = VERSION

    @classmethod
    def with_items(cls, n: int) -> Source:
        return cls(np.arange(1, n + 1), np.tile(np.array([0.6, 0.8], np.float32), (n, 1)))


class ItemStream:
    """A topic of items, an item worker that processes some of its messages whenever it is asked, and its index."""

    def __init__(
        self,
        partitioner: Partitioner = "murmur2",
        index: MemoryIndex | None = None,
        version: str = VERSION,
        dim: int = 2,
    ) -> None:
        self.keys = KeyPartitions(partitioner, PARTITIONS)
        self.index = MemoryIndex(version, dim) if index is None else index
        self.log: dict[int, list[Message]] = {p: [] for p in range(PARTITIONS)}
        self.done = dict.fromkeys(range(PARTITIONS), 0)
        self.step = 10_000  # messages of each partition that the item worker processes when it is asked
        self.error: Exception | None = None  # raised when messages are sent
        self.on_ask: Callable[[], object] = lambda: None
        self.on_send: Callable[[], object] = lambda: None
        self.stopping = threading.Event()  # the service's
        self.dead_letters = MemoryRecordProducer()
        self._processor = ItemProcessor(
            self.index,
            self.dead_letters,
            dead_letters=DeadLetterTopic("dead-letters", 10**6),
            decoder=ItemDecoder(version, dim, NORMS, self.keys),
            require_lease=lambda: None,
            metrics=ItemMetrics(CollectorRegistry()),
        )

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        self.on_send()
        if self.error is not None:
            raise self.error
        offsets = []
        for output in outputs:
            partition = self.keys.target(output.key or b"") if output.partition is None else output.partition
            log = self.log[partition]
            offsets.append(len(log))
            log.append(Message("items", partition, len(log), output.key, output.value))
        produced()
        return offsets

    def publish(self, item_id: int, version: str = VERSION, partition: int | None = None) -> None:
        value = encode_item(Item(item_id, np.array([0.6, 0.8], np.float32), version))
        self.send([Output("items", str(item_id).encode(), value, partition)])

    def ends(self) -> Mapping[int, int]:
        return {p: len(log) for p, log in self.log.items()}

    def processed(self) -> Mapping[int, int]:
        self.on_ask()
        self.work()
        return dict(self.done)

    def close(self) -> None:
        pass

    def work(self) -> None:
        for p, log in self.log.items():
            messages = log[self.done[p] : self.done[p] + self.step]
            if messages:
                self._processor.finish(PendingItems(messages))
                self.done[p] += len(messages)

    def topic(self) -> ItemsTopic:
        return ItemsTopic("items", self.keys, lambda: self.messages, self, self)

    def bulk(self, source: Source, timeout_s: float = 20.0) -> BulkItems:
        return BulkItems(source, NORMS, self.index, self.topic, PARTITIONS, timeout_s, self.stopping)

    @property
    def count(self) -> int:
        return self.index.describe().count

    @property
    def messages(self) -> list[Message]:
        return [message for log in self.log.values() for message in log]


class ClickStream(MemoryRecordProducer):
    """A topic of clicks; `error` is raised when some are sent."""

    error: Exception | None = None

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        if self.error is not None:
            raise self.error
        return super().send(outputs, produced)


def memory_writes(
    config: ServiceConfig,
    model: Artifact,
    index: ItemTable,
    milvus: ThreadCalls,
    clicks: ClickStream,
    items: ItemStream,
) -> Writes:
    """Return what the routes that write use, over topics in memory."""
    topics, norms, largest = config.topics, Norms.from_artifact(model), config.topics.max_message_bytes
    click_keys = KeyPartitions(topics.partitioner, topics.partitions)
    return Writes(
        ClickMessages(topics.clicks, click_keys, largest),
        ItemMessages(topics.items, items.keys, largest, model.model_version, model.dim, norms),
        SharedProducer(clicks, 20.0),
        SharedProducer(items, 20.0),
        RecallableItems(index, milvus, config.service.recallable_timeout),
        BulkItems(model, norms, index, items.topic, PARTITIONS, config.service.insert_timeout, items.stopping),
    )
