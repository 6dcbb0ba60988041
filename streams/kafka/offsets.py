"""Offsets of a topic's partitions, and the assignment of a consumer group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicPartition,
)

from configs.errors import TransientError
from configs.schema import Kafka
from streams.kafka.client import ADMIN_TIMEOUT_S, admin_client, reader_settings, translate_error
from streams.ports import Position

_LOG = logging.getLogger("mindstream.kafka")

#: Most log lines and other events that are taken from a client at a time.
_MAX_EVENTS = 1000


class TopicOffsets:
    """Offsets of a topic's partitions, read through one consumer that is kept: each further query is one request.

    For one thread. It joins no group and commits nothing. librdkafka's admin client offers the same, but it aborts the
    whole process when a broker goes down while a request about offsets is in flight (confluentinc/librdkafka#3663).

    librdkafka looks up the leader of a partition once, and may use an outdated answer for minutes. So after a broker
    has returned an error, the next query uses a new consumer.

    Args:
        kafka: the cluster.
        topic: name of the topic.
        group: the consumer group whose offsets `committed` returns.

    All methods raise TransientError when Kafka is unavailable, FatalError when it refuses the request.
    """

    def __init__(self, kafka: Kafka, topic: str, group: str = "mindstream-reader") -> None:
        self._kafka = kafka
        self.topic = topic
        self._group = group
        self._consumer: Consumer | None = None

    def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Return partition → the offset after its newest message."""
        return self._offsets_at(OFFSET_END, partitions)

    def beginning_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Return partition → the offset of its oldest message."""
        return self._offsets_at(OFFSET_BEGINNING, partitions)

    def committed(self, partitions: Collection[int]) -> dict[int, int | None]:
        """Return partition → the offset that the group has committed; None if it has committed none."""
        return {p: None if position is None else position.offset for p, position in self.positions(partitions).items()}

    def positions(self, partitions: Collection[int]) -> dict[int, Position | None]:
        """Return partition → what the group has committed; None if it has committed nothing."""
        answers = self._query(Consumer.committed, [TopicPartition(self.topic, p) for p in partitions])
        return {a.partition: Position(a.offset, _metadata(a)) if a.offset >= 0 else None for a in answers}

    def renew(self) -> None:
        """Use a new consumer from the next query on: the present one may ask a broker that leads no longer."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _offsets_at(self, position: int, partitions: Collection[int]) -> dict[int, int]:
        # The protocol takes these two, "latest" and "earliest", in place of a timestamp.
        answers = self._query(Consumer.offsets_for_times, [TopicPartition(self.topic, p, position) for p in partitions])
        return {answer.partition: answer.offset for answer in answers}

    def _query(self, method: Callable[..., Any], topic_partitions: list[TopicPartition]) -> list[TopicPartition]:
        if not topic_partitions:
            return []
        try:
            if self._consumer is None:
                self._consumer = Consumer(reader_settings(self._kafka, self._group), logger=_LOG)
            self._consumer.consume(_MAX_EVENTS, timeout=0)  # only writes queued log lines: nothing is assigned
            answers: list[TopicPartition] = method(self._consumer, topic_partitions, timeout=ADMIN_TIMEOUT_S)
            for answer in answers:
                if answer.error is not None:
                    raise KafkaException(answer.error)
        except KafkaException as error:
            if error.args[0].code() > 0:
                # A broker returned it. librdkafka's own codes, for an unavailable broker among others, are negative.
                self.renew()
            raise translate_error(error.args[0], self.topic) from None
        return answers


def _metadata(committed: TopicPartition) -> str:
    """Return the text that was committed with an offset; "" if another program's text is not UTF-8."""
    try:
        return committed.metadata or ""
    except UnicodeDecodeError:
        text = "offset %d of %s [%d] was committed with a text that is not UTF-8, by another program: it is ignored"
        _LOG.warning(text, committed.offset, committed.topic, committed.partition)
        return ""


def assigned_to_others(kafka: Kafka, group: str, topic: str, client_id: str) -> set[int]:
    """Return the partitions of a topic that are assigned to members of the group with another client id.

    Only an admin client can tell. It may abort the process (see `TopicOffsets`), so it is used for one request only.

    Raises:
        TransientError: Kafka is unavailable, or refuses the request.
    """
    client = admin_client(kafka)
    try:
        future = client.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_S)[group]
        members = future.result().members
    except KafkaException as error:
        raise TransientError("Kafka", str(error.args[0])) from None
    return {
        assigned.partition
        for member in members
        if member.client_id != client_id and member.assignment is not None
        for assigned in member.assignment.topic_partitions
        if assigned.topic == topic
    }


def committed_topics(kafka: Kafka, group: str) -> set[str]:
    """Return the topics on which a group has committed offsets.

    Only an admin client can tell. It may abort the process (see `TopicOffsets`), so call it only at the start.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses the request.
    """
    client = admin_client(kafka)
    asked = [ConsumerGroupTopicPartitions(group)]
    try:
        answer = client.list_consumer_group_offsets(asked, request_timeout=ADMIN_TIMEOUT_S)[group].result()
    except KafkaException as error:
        raise translate_error(error.args[0], group) from None
    return {found.topic for found in answer.topic_partitions if found.offset >= 0}
