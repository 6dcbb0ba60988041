"""Read topics without joining a consumer group: to the end, or as messages arrive."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage

from configs.errors import FatalError, TransientError
from configs.schema import Kafka
from streams.kafka.client import ADMIN_TIMEOUT_S, is_harmless, metadata, reader_settings, translate_error
from streams.ports import Message

_LOG = logging.getLogger("mindstream.kafka")

#: Most messages taken from the client at a time, and seconds to wait for them.
_MAX_MESSAGES, _WAIT_S = 1000, 0.2
#: Messages that are read rather than sought past on the way to the next one that is wanted.
_NEAR = 10_000
#: Settings of a consumer that reports the ends of partitions.
_ENDS = {"enable.partition.eof": True}
#: Seconds without a message, before the end of a topic, after which Kafka counts as unavailable.
SILENCE_TIMEOUT_S = 3 * ADMIN_TIMEOUT_S


class ReceivedMessage(NamedTuple):
    """A message with what readers other than the worker need.

    Attributes:
        message: topic, partition, offset, key and value; neither headers nor timestamp.
        headers: name → value; empty unless they were asked for. If a name is repeated, its last value.
        timestamp: seconds since 1970, by the broker's clock.
    """

    message: Message
    headers: dict[str, bytes]
    timestamp: float


def watermarks(kafka: Kafka, topic: str, partitions: Collection[int] | None = None) -> dict[int, tuple[int, int]]:
    """Return partition → (offset of its oldest message, offset after its newest); None = of all partitions.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: there is no such topic.
    """
    wanted = _partitions(kafka, topic) if partitions is None else partitions
    with _reader(kafka) as consumer:
        return {p: _watermarks(consumer, topic, p) for p in sorted(wanted)}


def read_to_end(
    kafka: Kafka, topic: str, starts: Mapping[int, int] | None = None, *, headers: bool = False
) -> Generator[ReceivedMessage]:
    """Yield every message that the topic holds at the time of the call, in order within a partition.

    Args:
        kafka: the cluster.
        topic: to read.
        starts: partition → first offset to read; None = all partitions from their oldest message.
        headers: read headers, too. Only for topics that this project writes: confluent-kafka fails if a header's name
            is not UTF-8.

    Raises:
        TransientError: Kafka is unavailable, or sends nothing for 30 seconds.
        FatalError: there is no such topic.
    """
    found = watermarks(kafka, topic, None if starts is None else starts.keys())
    begins = {p: low if starts is None else max(low, starts[p]) for p, (low, _) in found.items()}
    ends = {p: end for p, (_, end) in found.items() if end > begins[p]}
    with _reader(kafka) as consumer:
        assigned = [TopicPartition(topic, p, begins[p]) for p in ends]
        consumer.assign(assigned)
        arriving = _batches(consumer, topic)
        while ends:
            for raw in next(arriving):
                yield _received(raw, headers)
            # The last message's offset would not do: transaction markers and compaction leave gaps at the end.
            positions = {tp.partition: tp.offset for tp in consumer.position(assigned)}
            ends = {p: end for p, end in ends.items() if positions[p] < end}


def first_messages(kafka: Kafka, topic: str, starts: Mapping[int, int]) -> dict[int, Message]:
    """Return partition → its first message at or after the given offset; partitions that have none are left out.

    Raises:
        TransientError: Kafka is unavailable, or sends nothing for 30 seconds.
        FatalError: Kafka refuses to let this user read the topic.
    """
    found: dict[int, Message] = {}
    if not starts:
        return found
    # Read ahead little: only one message of each partition is wanted.
    settings: dict[str, Any] = _ENDS | {"auto.offset.reset": "earliest", "queued.max.messages.kbytes": 1024}
    with _reader(kafka, settings) as consumer:
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        remaining = set(starts)
        arriving = _batches(consumer, topic)
        while remaining:
            done = set()
            for raw in next(arriving):
                partition = cast("int", raw.partition())
                done |= remaining & {partition}
                if raw.error() is None:
                    found.setdefault(partition, _received(raw, headers=False).message)
            consumer.incremental_unassign([TopicPartition(topic, partition) for partition in done])
            remaining -= done
    return found


def messages_at(kafka: Kafka, topic: str, offsets: Mapping[int, Collection[int]]) -> list[Message]:
    """Return the messages at these offsets by partition; those that Kafka does not have any more are left out.

    What lies between offsets that are close to each other is read, too.

    Raises:
        TransientError: Kafka is unavailable, or sends nothing for 30 seconds.
        FatalError: Kafka refuses to let this user read the topic.
    """
    bounds = watermarks(kafka, topic, [partition for partition, wanted in offsets.items() if wanted])
    kept = {p: sorted((n for n in offsets[p] if low <= n < end), reverse=True) for p, (low, end) in bounds.items()}
    remaining = {partition: wanted for partition, wanted in kept.items() if wanted}  # partition → the next one last
    found: list[Message] = []
    if not remaining:
        return found
    with _reader(kafka, _ENDS) as consumer:
        consumer.assign([TopicPartition(topic, partition, wanted[-1]) for partition, wanted in remaining.items()])
        arriving = _batches(consumer, topic)
        while remaining:
            far = set[int]()  # partitions whose next wanted message is not among the next ones
            for raw in next(arriving):
                partition = cast("int", raw.partition())
                wanted = remaining.get(partition, [])
                if raw.error() is not None:  # the end of the partition
                    wanted.clear()
                    continue
                message = _received(raw, headers=False).message
                while wanted and wanted[-1] <= message.offset:
                    if wanted.pop() == message.offset:
                        found.append(message)
                (far.add if wanted and wanted[-1] - message.offset > _NEAR else far.discard)(partition)
            done = [partition for partition, wanted in remaining.items() if not wanted]
            consumer.incremental_unassign([TopicPartition(topic, partition) for partition in done])
            remaining = {partition: wanted for partition, wanted in remaining.items() if wanted}
            for partition in far & remaining.keys():
                consumer.seek(TopicPartition(topic, partition, remaining[partition][-1]))
    return found


def follow(kafka: Kafka, topics: Sequence[str], from_beginning: bool = False) -> Generator[ReceivedMessage | None]:
    """Yield messages as they arrive, without end, and None whenever none has arrived for 0.2 s.

    Raises:
        TransientError: Kafka is unavailable at the start. During later outages, the iterator waits.
        FatalError: there is no such topic, or Kafka refuses to let this user read it.
    """
    topic_partitions = [(topic, partition) for topic in topics for partition in _partitions(kafka, topic)]
    with _reader(kafka) as consumer:
        starts = []
        for topic, partition in topic_partitions:
            low, high = _watermarks(consumer, topic, partition)
            starts.append(TopicPartition(topic, partition, low if from_beginning else high))
        consumer.assign(starts)
        while True:
            arrived = consumer.consume(_MAX_MESSAGES, timeout=_WAIT_S)
            if not arrived:
                yield None
            for raw in arrived:
                error = raw.error()
                if error is None:
                    yield _received(raw, headers=False)
                elif error.fatal() or not (
                    error.retriable() or is_harmless(error) or error.code() == KafkaError._ALL_BROKERS_DOWN
                ):
                    raise translate_error(error, raw.topic())


@contextmanager
def _reader(kafka: Kafka, settings: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Consumer]:
    """Create a consumer without a group, translate its exceptions, and close it."""
    consumer = Consumer(reader_settings(kafka, **settings), logger=_LOG)
    try:
        yield consumer
    except KafkaException as error:
        raise translate_error(error.args[0]) from None
    finally:
        consumer.close()


def _batches(consumer: Consumer, topic: str) -> Iterator[list[RawMessage]]:
    """Yield the messages that arrive, and the ends of partitions if the consumer reports them, without end.

    Raises:
        TransientError: Kafka is unavailable, or sends nothing for 30 seconds.
        FatalError: Kafka refuses to let this user read the topic.
    """
    last_message_at = time.monotonic()
    while True:
        batch: list[RawMessage] = []
        for raw in consumer.consume(_MAX_MESSAGES, timeout=_WAIT_S):
            last_message_at = time.monotonic()
            error = raw.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                batch.append(raw)
            elif not is_harmless(error):
                raise translate_error(error, topic)
        yield batch
        if time.monotonic() - last_message_at > SILENCE_TIMEOUT_S:
            raise TransientError("Kafka", f"{topic}: no message for {SILENCE_TIMEOUT_S:.0f} s before its end")


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ADMIN_TIMEOUT_S)
    if found is None:
        raise TransientError("Kafka", f"{topic} [{partition}]: no answer within {ADMIN_TIMEOUT_S:.0f} s")
    low, high = found
    return int(low), int(high)


def _partitions(kafka: Kafka, topic: str) -> list[int]:
    found = metadata(kafka).topics
    if topic not in found:
        raise FatalError(
            f"Kafka has no topic {topic}, or this user has no rights to it; create the topics with: "
            "python -m streams topics create"
        )
    return sorted(found[topic].partitions)


def _received(raw: RawMessage, headers: bool) -> ReceivedMessage:
    topic, partition, offset = raw.topic(), raw.partition(), raw.offset()
    assert topic is not None and partition is not None and offset is not None  # set on consumed messages
    message = Message(topic, partition, offset, _bytes(raw.key()), _bytes(raw.value()))
    found = cast("list[tuple[str, bytes | None]]", (raw.headers() if headers else None) or [])
    return ReceivedMessage(message, {name: value or b"" for name, value in found}, raw.timestamp()[1] / 1000)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
