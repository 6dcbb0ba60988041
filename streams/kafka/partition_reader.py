"""Read keys and values of a topic's partitions from given offsets on, to copy them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage

from configs.schema import Kafka
from streams.kafka.client import is_harmless, reader_settings, translate_error

#: Kilobytes that the client reads ahead.
_READ_AHEAD_KB = 16 * 1024


@dataclass(frozen=True, slots=True)
class PartitionChunk:
    """Successive messages of one partition.

    Attributes:
        messages: keys and values, at least one; None as value is a tombstone.
        offsets: their offsets.
        timestamps: their times by the broker's clock, in seconds since 1970; empty unless they were asked for.
    """

    messages: Sequence[tuple[bytes | None, bytes | None]]
    offsets: Sequence[int]
    timestamps: Sequence[float] = ()

    @property
    def last_offset(self) -> int:
        """Offset of the last message."""
        return self.offsets[-1]


class PartitionReader:
    """Reads partitions of one topic. Joins no consumer group. For one thread.

    Args:
        kafka: the cluster.
        topic: to read.
        timestamps: return the times of messages, too; restoring histories is faster without.
    """

    def __init__(self, kafka: Kafka, topic: str, timestamps: bool = False) -> None:
        self._topic = topic
        self._timestamps = timestamps
        settings = {
            # For offsets that Kafka does not have any more; reading a history record again changes nothing.
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": _READ_AHEAD_KB,
        }
        self._consumer = Consumer(
            reader_settings(kafka, "mindstream-restore", **settings), logger=logging.getLogger("mindstream.kafka")
        )

    def start(self, starts: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in starts.items()])

    def read(self, max_messages: int, timeout_s: float) -> tuple[dict[int, PartitionChunk], dict[int, int]]:
        """Wait up to `timeout_s` seconds for `max_messages` messages.

        Returns:
            Messages by partition; and for each partition that was read to its end, the offset after it.

        Raises:
            TransientError: Kafka is unavailable.
            FatalError: Kafka refuses to let this user read the topic.
        """
        received: dict[int, list[RawMessage]] = {}
        ends: dict[int, int] = {}
        try:
            for message in self._consumer.consume(max_messages, timeout_s):
                error = message.error()
                if error is None:
                    received.setdefault(_int(message.partition()), []).append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ends[_int(message.partition())] = _int(message.offset())
                elif not is_harmless(error):
                    raise translate_error(error, self._topic)
        except KafkaException as error:
            raise translate_error(error.args[0]) from None
        return {partition: self._chunk(messages) for partition, messages in received.items()}, ends

    def close(self) -> None:
        self._consumer.close()

    def _chunk(self, received: Sequence[RawMessage]) -> PartitionChunk:
        messages = [(message.key(), message.value()) for message in received]
        timestamps = [message.timestamp()[1] / 1000 for message in received] if self._timestamps else ()
        return PartitionChunk(messages, [_int(message.offset()) for message in received], timestamps)


def _int(value: int | None) -> int:
    assert value is not None  # set on consumed messages; only its type is optional
    return value
