"""The item agent: upserts and deletes in Milvus, under a lease for the partitions."""

from __future__ import annotations

from collections.abc import Collection

from model.serving.norms import Norms
from streams.agents.assignment import Assignment
from streams.agents.faust_app import worker_app
from streams.messages.dead_letters import DeadLetterTopic
from streams.metrics import ItemMetrics
from streams.partitioning import KeyPartitions
from streams.processing.item_decoder import ItemDecoder
from streams.processing.items import ItemProcessor
from streams.worker.parts import Blueprint, BuiltAgent


class ItemHooks:
    """The `PartitionHooks` of the item agent: partitions need no preparation; maintenance seals the index."""

    def __init__(self, processor: ItemProcessor) -> None:
        self._processor = processor

    def acquire(self, partitions: Collection[int]) -> None:
        """Do nothing."""

    def maintain(self, partitions: Collection[int]) -> None:  # noqa: ARG002
        """Seal the index when that is due."""
        self._processor.seal_when_due()

    def maintenance_due(self) -> bool:
        """Return False: sealing waits for its turn."""
        return False

    def commit_metadata(self, partition: int) -> str:  # noqa: ARG002
        """Return "": reading an item again changes nothing."""
        return ""

    def release(self) -> None:
        """Do nothing."""


def build_item_agent(blueprint: Blueprint) -> BuiltAgent:
    """Build the item agent in a Faust app of its own.

    Raises:
        FatalError: Kafka refuses this client.
        TransientError: Kafka is unavailable.
    """
    config, artifact = blueprint.config, blueprint.artifact
    topics = config.topics
    metrics = ItemMetrics(blueprint.registry)
    # Half a session: an accepted commit proves ownership for the rest of the session only.
    assignment = Assignment(lease_s=config.worker.session_timeout / 2)
    processor = ItemProcessor(
        blueprint.index,
        blueprint.record_producer(),
        dead_letters=DeadLetterTopic(topics.dead_letters, topics.max_message_bytes),
        decoder=ItemDecoder(
            artifact.model_version,
            artifact.dim,
            Norms.from_artifact(artifact),
            KeyPartitions(topics.partitioner, topics.item_partitions),
        ),
        require_lease=assignment.require_lease,
        metrics=metrics,
    )
    options = blueprint.options(
        batch_size=config.items.batch_size, batch_wait_s=config.items.batch_wait, look_ahead=False
    )
    app = worker_app(
        config,
        "items",
        config.items.batch_size,
        lambda app: blueprint.parts.agent(
            app,
            topics.items,
            processor,
            hooks=ItemHooks(processor),
            assignment=assignment,
            options=options,
            metrics=metrics,
        ),
    )
    return BuiltAgent(app, metrics, topics.item_partitions, lambda: 0)
