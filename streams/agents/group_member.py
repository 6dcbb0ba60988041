"""This process as a member of the consumer group of one topic, by partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import faust
from faust.types import TP

from streams.ports import Position


class GroupMember:
    """The consumer of a Faust app, for one topic. The app has a consumer only after Faust has started it.

    Args:
        app: a `streams.agents.consumer.WorkerApp`: this class uses methods that only its consumer has.
        topic: the topic that is read.
    """

    def __init__(self, app: faust.App, topic: str) -> None:
        self.topic = topic
        self._app = app

    @property
    def started(self) -> bool:
        """True once the app's start has begun; it may wait (`streams.agents.consumer.WorkerApp.start`)."""
        return bool(self._app.started)

    @property
    def generation(self) -> int:
        """The group's generation, as the consumer knows it."""
        return int(cast("Any", self._app).consumer_generation_id)

    async def commit(self, positions: Mapping[int, Position]) -> bool:
        """Commit positions by partition; return whether Kafka accepted them."""
        topic_partitions = {TP(self.topic, partition): position for partition, position in positions.items()}
        return bool(await self._consumer.commit_positions(topic_partitions))

    def start_offset(self, partition: int) -> int | None:
        """Return the committed offset, where reading began; None = nothing was committed."""
        offset: int | None = self._consumer.start_offset(TP(self.topic, partition))
        return offset

    async def oldest_offset(self, partition: int) -> int:
        """Return the offset of the oldest message that Kafka still has.

        Raises:
            TransientError: Kafka did not respond.
        """
        return int(await self._consumer.oldest_offset(TP(self.topic, partition)))

    @property
    def _consumer(self) -> Any:
        return self._app.consumer
