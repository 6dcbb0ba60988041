"""Read topics without joining a consumer group: to the end, or as messages arrive."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage

from configs.errors import FatalError, TransientError
from configs.schema import Kafka
from streams.kafka.client import ADMIN_TIMEOUT, fault, harmless, metadata, reader
from streams.ports import Message

_LOG = logging.getLogger("mindstream.kafka")


class Record(NamedTuple):
    """A message as the tools read it; headers only where asked for; written in seconds since 1970."""

    message: Message
    headers: dict[str, bytes]
    written: float


def watermarks(kafka: Kafka, topic: str, partitions: Collection[int] | None = None) -> dict[int, tuple[int, int]]:
    """Partition → offset of its oldest message and the offset after its newest; None = all partitions.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic.
    """
    wanted = _partitions(kafka, topic) if partitions is None else partitions
    consumer = Consumer(reader(kafka), logger=_LOG)
    try:
        return {p: _watermarks(consumer, topic, p) for p in sorted(wanted)}
    except KafkaException as error:
        raise fault(error.args[0]) from None
    finally:
        consumer.close()


def read_to_end(
    kafka: Kafka, topic: str, starts: Mapping[int, int] | None = None, *, headers: bool = False
) -> Generator[Record]:
    """Every message that the topic holds now, as they come; in order within a partition. Joins no consumer group.

    Args:
        kafka: the cluster.
        topic: to read.
        starts: partition → first offset to read; None = all partitions from their oldest message.
        headers: read them, too; not for what others write: confluent-kafka fails at a name that is no UTF-8.

    Raises:
        TransientError: Kafka is away or does not answer for 30 seconds.
        FatalError: there is no such topic.
    """
    marks = watermarks(kafka, topic, None if starts is None else starts.keys())
    begin = {p: low if starts is None else max(low, starts[p]) for p, (low, _) in marks.items()}
    ends = {p: end for p, (_, end) in marks.items() if end > begin[p]}
    consumer = Consumer(reader(kafka), logger=_LOG)
    try:
        assigned = [TopicPartition(topic, p, begin[p]) for p in ends]
        consumer.assign(assigned)
        quiet_since = time.monotonic()
        while ends:
            for raw in consumer.consume(1000, timeout=0.2):
                quiet_since = time.monotonic()
                error = raw.error()
                if error is None:
                    yield _record(raw, headers)
                elif not harmless(error):
                    raise fault(error, raw.topic())
            positions = {tp.partition: tp.offset for tp in consumer.position(assigned)}
            # By position, not by the last offset seen: markers and compaction leave gaps at the end.
            ends = {p: end for p, end in ends.items() if positions[p] < end}
            if time.monotonic() - quiet_since > 3 * ADMIN_TIMEOUT:
                raise TransientError("Kafka", f"{topic}: no message for {3 * ADMIN_TIMEOUT:.0f} s before its end")
    except KafkaException as error:
        raise fault(error.args[0]) from None
    finally:
        consumer.close()


def follow(kafka: Kafka, topics: Sequence[str], from_beginning: bool = False) -> Iterator[Record | None]:
    """Messages as they arrive, for ever; None whenever none arrived for 0.2 s, so that a caller can look around.

    Raises:
        TransientError: Kafka is away at the start. Later on, its return is waited for.
        FatalError: there is no such topic, or it refuses us.
    """
    places = [(topic, partition) for topic in topics for partition in _partitions(kafka, topic)]
    consumer = Consumer(reader(kafka), logger=_LOG)
    try:
        starts = []
        for topic, partition in places:
            low, high = _watermarks(consumer, topic, partition)
            starts.append(TopicPartition(topic, partition, low if from_beginning else high))
        consumer.assign(starts)
        while True:
            arrived = consumer.consume(1000, timeout=0.2)
            if not arrived:
                yield None
            for raw in arrived:
                error = raw.error()
                if error is None:
                    yield _record(raw, headers=False)
                elif error.fatal() or not (
                    error.retriable() or harmless(error) or error.code() == KafkaError._ALL_BROKERS_DOWN
                ):
                    raise fault(error, raw.topic())
    except KafkaException as error:
        raise fault(error.args[0]) from None
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ADMIN_TIMEOUT)
    if found is None:
        raise TransientError("Kafka", f"{topic} [{partition}]: no answer within {ADMIN_TIMEOUT:.0f} s")
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


def _record(raw: RawMessage, headers: bool) -> Record:
    topic, partition, offset = raw.topic(), raw.partition(), raw.offset()
    assert topic is not None and partition is not None and offset is not None  # set on consumed messages
    message = Message(topic, partition, offset, _bytes(raw.key()), _bytes(raw.value()))
    found = cast("list[tuple[str, bytes | None]]", (raw.headers() if headers else None) or [])
    return Record(message, {name: value or b"" for name, value in found}, raw.timestamp()[1] / 1000)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
