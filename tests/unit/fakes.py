"""Parts for unit tests: a model of a few items, servers that fail on demand, a click processor, messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import orjson
from prometheus_client import CollectorRegistry

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray, IdVector, IntMatrix, IntVector
from streams.messages.dead_letters import DeadLetterTopic, StoredDeadLetter, dead_letter_output, read_dead_letter
from streams.metrics import ClickMetrics
from streams.partitioning import KeyPartitions
from streams.ports import DeadLetter, Message, Output
from streams.processing.clicks import ClickProcessor, ClickTopics
from streams.processing.memory import MemoryHistoryStore, MemoryRecordProducer
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.engine import RecallEngine
from streams.recall.memory import MemoryIndex
from streams.recall.ports import IndexInfo

VERSION = "m1"
#: The time at which a `ClickWorld` begins, in seconds since 1970; its clicks are made 10 seconds before it.
NOW = 1_404_172_800.0


class FewItems:
    """Items 1 to n. The vector of item i is the i-th unit vector."""

    def __init__(self, n: int) -> None:
        self.item_vectors: FloatArray = np.eye(n, dtype=np.float32)

    def rows(self, ids: IdArray) -> IdArray:
        known = (ids >= 1) & (ids <= len(self.item_vectors))
        return np.where(known, ids - 1, -1)


class MeanEncoder:
    """Encodes a history as one interest: the mean of its embeddings, which shows a test what was encoded."""

    interests = 1
    fusion = 0.0

    def __init__(self, dim: int, history_length: int = 4) -> None:
        self.dim = dim
        self.history_length = history_length

    def encode(self, embeddings: FloatArray, lengths: IdArray) -> FloatArray:
        mean = embeddings.sum(axis=1) / np.maximum(lengths, 1)[:, None]  # (B, D)
        interests: FloatArray = mean[:, None, :].astype(np.float32)  # (B, 1, D)
        return interests


class FailingIndex:
    """A memory index that is unavailable for the next `failures` calls."""

    def __init__(self, inner: MemoryIndex, failures: int) -> None:
        self._inner = inner
        self.failures = failures
        self.seals = 0

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise TransientError("Milvus", "unavailable, for the test")

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        self._maybe_fail()
        return self._inner.search(queries, limit)

    def upsert(self, ids: IdArray, vectors: FloatArray, sources: IntMatrix | None = None) -> None:
        self._maybe_fail()
        self._inner.upsert(ids, vectors, sources)

    def delete(self, ids: IdArray) -> None:
        self._maybe_fail()
        self._inner.delete(ids)

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        self._maybe_fail()
        return self._inner.get(ids)

    def seal(self) -> None:
        self._maybe_fail()
        self.seals += 1

    def describe(self) -> IndexInfo:
        return self._inner.describe()

    @property
    def identity(self) -> str:
        return self._inner.identity

    def check_identity(self) -> None:
        self._inner.check_identity()

    def bind(self, topic: str, topic_id: str) -> None:
        self._inner.bind(topic, topic_id)

    def sources(self, ids: IdArray) -> Mapping[int, tuple[int, int]]:
        self._maybe_fail()
        return self._inner.sources(ids)

    def rows(self, partition: int) -> Iterator[tuple[IdVector, IntVector]]:
        self._maybe_fail()
        return self._inner.rows(partition)


class CrashingRecordProducer(MemoryRecordProducer):
    """Writes only the first `survivors` messages of its first call, which fails; later calls succeed."""

    def __init__(self, survivors: int) -> None:
        super().__init__()
        self._survivors: int | None = survivors

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        if self._survivors is not None:
            survivors, self._survivors = self._survivors, None
            super().send(outputs[:survivors], produced)
            raise TransientError("Kafka", "connection lost, for the test")
        return super().send(outputs, produced)


class ClickWorld:
    """A click processor whose index, store and producer are in memory, with its parts as attributes."""

    def __init__(
        self,
        items: int = 6,
        length: int = 4,
        producer: MemoryRecordProducer | None = None,
        failures: int = 0,
        partitions: KeyPartitions | None = None,
    ) -> None:
        self.known = FewItems(items)
        self.memory = MemoryIndex(VERSION, items)
        self.memory.upsert(np.arange(1, items + 1), self.known.item_vectors)
        self.index = FailingIndex(self.memory, failures)
        self.now = NOW
        self.store = MemoryHistoryStore()
        self.producer = producer or MemoryRecordProducer()
        self.metrics = ClickMetrics(CollectorRegistry())
        self.embeddings = HistoryEmbeddings(
            self.known, self.index, capacity=10, refresh_s=60.0, unknown_ttl_s=1.0, clock=lambda: self.now
        )
        self.engine = RecallEngine(MeanEncoder(items), self.embeddings, self.index, top_k=3)
        self.processor = ClickProcessor(
            self.engine,
            self.store,
            self.producer,
            topics=ClickTopics(
                partitions or KeyPartitions("any", 1),
                *("recommendations", "changelog"),
                DeadLetterTopic("dead-letters", 10**7),
            ),
            model_version=VERSION,
            history_length=length,
            metrics=self.metrics,
            clock=lambda: self.now,
        )

    def process(self, messages: Sequence[Message]) -> None:
        """Process a batch, as the agent does without looking ahead."""
        pending = self.processor.start(messages)
        pending.wait()
        self.processor.finish(pending)

    def sent(self, topic: str) -> list[Output]:
        """Return the messages sent to this topic."""
        return [output for output in self.producer.sent if output.topic == topic]


def click_message(offset: int, user: int | str, item: int, partition: int = 0) -> Message:
    value = orjson.dumps({"user_id": user, "item_id": item, "ts": NOW - 10 + offset})
    return Message("clicks", partition, offset, str(user).encode(), value)


def stored(output: Output, offset: int = 0) -> tuple[Message, dict[str, bytes]]:
    """Return a message of the dead-letter topic, and its headers, as a reader gets them."""
    return Message(output.topic, 0, offset, output.key, output.value), dict(output.headers)


def stored_dead_letter(message: Message, now: float = 1000.0, max_bytes: int = 10**7) -> StoredDeadLetter:
    """Return the message as the dead-letter topic keeps it, with the reason `not_json`."""
    output = dead_letter_output("dead-letters", DeadLetter(message, "not_json", "broken"), now, max_bytes)
    dead_letter = read_dead_letter(*stored(output))
    assert dead_letter is not None
    return dead_letter
