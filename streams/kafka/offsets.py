"""Offsets of a topic's partitions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

from configs.schema import Kafka
from streams.kafka.client import ADMIN_TIMEOUT, fault, reader

_LOG = logging.getLogger("mindstream.kafka")

#: Most log lines and the like that are taken from a client at a time.
_EVENTS = 1000


class Positions:
    """Offsets of a topic's partitions, through one consumer, which is kept: asking again is one request.

    For one thread. It joins no group and commits nothing. librdkafka's admin client would do, but it aborts the whole
    process when a broker goes while a request about offsets is under way (confluentinc/librdkafka#3663).

    librdkafka looks up once who leads a partition, and may believe that for minutes. So when a broker refuses, the next
    question goes through a new consumer.

    Args:
        kafka: the cluster.
        topic: that is asked about.
        group: whose commits are asked for.

    All methods raise TransientError when Kafka is away or does not answer, FatalError when it refuses for good.
    """

    def __init__(self, kafka: Kafka, topic: str, group: str = "mindstream-reader") -> None:
        self._kafka = kafka
        self.topic = topic
        self._group = group
        self._consumer: Consumer | None = None

    def ends(self, partitions: Collection[int]) -> dict[int, int]:
        """Partition → the offset after its newest message."""
        return self._offsets(partitions, OFFSET_END)

    def begins(self, partitions: Collection[int]) -> dict[int, int]:
        """Partition → the offset of its oldest message."""
        return self._offsets(partitions, OFFSET_BEGINNING)

    def committed(self, partitions: Collection[int]) -> dict[int, int | None]:
        """Partition → the offset that the group has committed; None = none."""
        found = self._ask(Consumer.committed, [TopicPartition(self.topic, p) for p in partitions])
        return {place.partition: place.offset if place.offset >= 0 else None for place in found}

    def _offsets(self, partitions: Collection[int], which: int) -> dict[int, int]:
        # What stands for a time in the protocol may be one of these two: "latest" and "earliest".
        found = self._ask(Consumer.offsets_for_times, [TopicPartition(self.topic, p, which) for p in partitions])
        return {place.partition: place.offset for place in found}

    def _ask(self, question: Callable[..., Any], places: list[TopicPartition]) -> list[TopicPartition]:
        if not places:
            return []
        try:
            if self._consumer is None:
                self._consumer = Consumer(reader(self._kafka, self._group), logger=_LOG)
            self._consumer.consume(_EVENTS, timeout=0)  # nothing is assigned: this only takes what is logged
            answers: list[TopicPartition] = question(self._consumer, places, timeout=ADMIN_TIMEOUT)
            for place in answers:
                if place.error is not None:
                    raise KafkaException(place.error)
        except KafkaException as error:
            if error.args[0].code() > 0 and self._consumer is not None:
                # Said by a broker; librdkafka's own are below 0, a broker that is away, too.
                consumer, self._consumer = self._consumer, None
                consumer.close()
            raise fault(error.args[0], self.topic) from None
        return answers
