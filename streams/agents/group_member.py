"""This process as a member of the consumer group of one topic, by partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import faust
from faust.types import TP


class GroupMember:
    """The consumer of a Faust app, for one topic. Faust makes the consumer when it starts.

    Args:
        app: a `streams.agents.consumer.WorkerApp`, whose consumer this class knows.
        topic: that is read.
    """

    def __init__(self, app: faust.App, topic: str) -> None:
        self.topic = topic
        self._app = app

    @property
    def generation(self) -> int:
        """The generation of the group that the consumer knows."""
        return int(cast("Any", self._app).consumer_generation_id)

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit offsets by partition; return whether Kafka accepted them."""
        # Faust's `commit` takes no offsets; `_commit` does, and is what it calls with its own.
        topic_partitions = {TP(self.topic, partition): offset for partition, offset in offsets.items()}
        return bool(await self._consumer._commit(topic_partitions))

    def start_offset(self, partition: int) -> int | None:
        """Return the committed offset at which reading began; None = nothing was committed."""
        offset: int | None = self._consumer.start_offset(TP(self.topic, partition))
        return offset

    async def oldest_offset(self, partition: int) -> int:
        """Return the offset of the oldest message that Kafka still has.

        Raises:
            TransientError: it did not respond.
        """
        return int(await self._consumer.oldest_offset(TP(self.topic, partition)))

    @property
    def _consumer(self) -> Any:
        return self._app.consumer
