"""The parts of a worker. Chaos tests and benchmarks replace some of them; production uses the defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from configs.schema import WorkerConfig
from model.artifact import Artifact
from streams.agents.agent import AgentOptions, BatchAgent
from streams.agents.consumer import WorkerApp
from streams.agents.retrying import RetryPolicy
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import DEAD_LETTER_HEADER_BYTES
from streams.metrics import BatchMetrics
from streams.milvus.index import MilvusIndex
from streams.milvus.observed import ObservedIndex
from streams.processing.clicks import ClickProcessor
from streams.recall.ports import ItemTable
from streams.state.store import PartitionStores
from streams.worker.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The classes of the parts that can be replaced."""

    index: Callable[..., ItemTable] = MilvusIndex
    record_producer: type[KafkaRecordProducer] = KafkaRecordProducer
    stores: type[PartitionStores] = PartitionStores
    click_processor: type[ClickProcessor] = ClickProcessor
    agent: type[BatchAgent[Any]] = BatchAgent


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The inputs that the builders of both agents share."""

    config: WorkerConfig
    artifact: Artifact
    index: ObservedIndex
    catalogue: Catalogue
    registry: CollectorRegistry
    parts: WorkerParts

    def record_producer(self) -> KafkaRecordProducer:
        """Build a producer; each agent has its own, because it is for one thread."""
        topics = self.config.topics
        largest = topics.max_message_bytes + DEAD_LETTER_HEADER_BYTES
        return self.parts.record_producer(self.config.kafka, largest, topics.partitioner)

    def options(self, *, batch_size: int, batch_wait_s: float, look_ahead: bool) -> AgentOptions:
        """Return the settings of an agent."""
        worker = self.config.worker
        return AgentOptions(
            batch_size=batch_size,
            batch_wait_s=batch_wait_s,
            look_ahead=look_ahead,
            retry=RetryPolicy(worker.retry_first, worker.retry_longest, worker.retry_budget),
            commit_interval_s=worker.commit_interval,
            # Kafka gives the group this long to rejoin; the next owner repeats a batch that needs longer.
            revoke_timeout_s=worker.session_timeout / 2,
        )


@dataclass(frozen=True, slots=True)
class BuiltAgent:
    """One agent of the process.

    Attributes:
        app: the Faust app in which it runs.
        metrics: the agent's metrics.
        partitions: number of partitions of its topic.
        restored: returns the number of history records that it has restored so far. May be called from any thread.
    """

    app: WorkerApp
    metrics: BatchMetrics
    partitions: int
    restored: Callable[[], int]
