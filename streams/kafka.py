"""confluent-kafka behind our own terms: sending with acknowledgement, topics, reading a topic to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka import Message as RawMessage
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from configs.schema import Kafka, Topics
from streams.errors import FatalError, TransientError
from streams.ports import Message, Output

_LOG = logging.getLogger("mindstream.kafka")

#: Seconds until an unacknowledged message counts as failed. Longer than a leader election takes.
DELIVERY_TIMEOUT = 30.0
#: Seconds to wait for an answer to a metadata or admin request.
ADMIN_TIMEOUT = 10.0
#: Bytes that a dead letter may have beyond the largest input message: its headers.
HEADER_BYTES = 2**20


class KafkaOutbox:
    """The `Outbox` over an idempotent producer. For one thread; each agent has its own.

    Args:
        kafka: the cluster.
        max_message_bytes: of the largest topic that it writes to.
    """

    def __init__(self, kafka: Kafka, max_message_bytes: int) -> None:
        self._kafka = kafka
        self._max_message_bytes = max_message_bytes
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        return Producer(
            self._kafka.client(
                **{
                    "enable.idempotence": True,
                    "acks": "all",
                    # The batch is complete when it is handed over, and `send` waits for it: lingering only adds delay.
                    "linger.ms": 0,
                    # As Kafka's Java clients do, so that other producers put a user into the same partition.
                    "partitioner": "murmur2_random",
                    "delivery.timeout.ms": int(DELIVERY_TIMEOUT * 1000),
                    "message.max.bytes": self._max_message_bytes,
                }
            ),
            logger=_LOG,
        )

    def send(self, outputs: Sequence[Output]) -> Sequence[int]:
        """See `streams.ports.Outbox.send`."""
        offsets = [-1] * len(outputs)
        errors: list[KafkaError] = []

        for place, output in enumerate(outputs):

            def delivered(error: KafkaError | None, message: RawMessage, place: int = place) -> None:
                if error is not None:
                    errors.append(error)
                else:
                    offset = message.offset()
                    offsets[place] = -1 if offset is None else offset

            self._produce(output, delivered)
        self._producer.flush()  # ends at the latest after the delivery timeout of the last message
        if errors:
            if any(error.fatal() for error in errors):
                # An idempotent producer that lost its place in the sequence never recovers; the batch is sent again.
                self._producer = self._new_producer()
            raise _fault(errors[0])
        return offsets

    def _produce(self, output: Output, delivered: Any) -> None:
        options: dict[str, Any] = {} if output.partition is None else {"partition": output.partition}
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    output.value,
                    output.key,
                    headers=list(output.headers),
                    on_delivery=delivered,
                    **options,
                )
            except BufferError:  # the local queue is full: let deliveries make room
                self._producer.poll(0.1)
            except KafkaException as error:
                raise _fault(error.args[0]) from None
            else:
                return


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must exist."""

    name: str
    partitions: int
    config: dict[str, str]


class Record(NamedTuple):
    """A message as the tools read it: with headers, and when it was written, in seconds since 1970."""

    message: Message
    headers: dict[str, bytes]
    written: float


def changelog_topic(group: str) -> str:
    """Name of the histories' changelog, as Faust derives it from application and table."""
    return f"{group}-clicks-history-changelog"


def topic_specs(topics: Topics, group: str) -> list[TopicSpec]:
    """All topics of the project."""
    kept = {"cleanup.policy": "delete", "retention.ms": str(int(topics.retention_days * 86_400_000))}
    compacted = {"cleanup.policy": "compact"}
    large = {"max.message.bytes": str(topics.max_message_bytes)}
    larger = {"max.message.bytes": str(topics.max_message_bytes + HEADER_BYTES)}
    safe = {"min.insync.replicas": "2"} if topics.replication >= 3 else {}
    return [
        TopicSpec(topics.clicks, topics.partitions, kept | large | safe),
        TopicSpec(topics.items, topics.item_partitions, compacted | large | safe),
        TopicSpec(topics.recommendations, topics.partitions, kept | safe),
        TopicSpec(topics.dead_letters, topics.item_partitions, kept | larger | safe),
        TopicSpec(changelog_topic(group), topics.partitions, compacted | safe),
    ]


def create_topics(kafka: Kafka, specs: Sequence[TopicSpec], replication: int) -> dict[str, bool]:
    """Create those topics that do not exist.

    Returns:
        Topic name → whether it was created now.

    Raises:
        TransientError: Kafka is away.
        FatalError: Kafka refuses, for example for lack of rights or of brokers for the replication.
    """
    wanted = [
        NewTopic(s.name, num_partitions=s.partitions, replication_factor=replication, config=s.config) for s in specs
    ]
    metadata(kafka)  # one clear error when Kafka is away, instead of one for each topic
    created: dict[str, bool] = {}
    admin = _admin(kafka)  # kept until the futures are done: they end with it
    futures = admin.create_topics(wanted, operation_timeout=ADMIN_TIMEOUT, request_timeout=ADMIN_TIMEOUT)
    for name, future in futures.items():
        try:
            future.result()
            created[name] = True
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise FatalError(f"topic {name} cannot be created: {error.args[0].str()}") from None
            created[name] = False
    _await_topics(kafka, [s.name for s in specs])
    return created


def check_topics(kafka: Kafka, specs: Sequence[TopicSpec]) -> None:
    """Check that the topics exist with the wanted number of partitions.

    Raises:
        TransientError: Kafka is away.
        FatalError: a topic is missing or has another number of partitions; the message says what mends it.
    """
    found = metadata(kafka).topics
    missing = [s.name for s in specs if s.name not in found]
    if missing:
        raise FatalError(
            f"Kafka has no topic {', '.join(missing)}; create the topics with: python -m streams topics create"
        )
    for spec in specs:
        count = len(found[spec.name].partitions)
        if count != spec.partitions:
            raise FatalError(
                f"topic {spec.name} has {count} partitions, the configuration says {spec.partitions}; set "
                "topics.partitions and topics.item_partitions to what Kafka has (histories lie in the partition of "
                "their clicks, so partitions cannot be added later)"
            )


def topic_id(kafka: Kafka, topic: str) -> str:
    """The identity of a topic: another one of the same name, created later, has another id.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic.
    """
    admin = _admin(kafka)
    future = admin.describe_topics(TopicCollection([topic]), request_timeout=ADMIN_TIMEOUT)[topic]
    try:
        return str(future.result().topic_id)
    except KafkaException as error:
        raise _fault(error.args[0]) from None


def metadata(kafka: Kafka) -> Any:
    """The cluster's topics.

    Raises:
        TransientError: Kafka is away.
    """
    try:
        return _admin(kafka).list_topics(timeout=ADMIN_TIMEOUT)
    except KafkaException as error:
        raise TransientError("Kafka", f"{kafka.bootstrap_servers}: {error.args[0].str()}") from None


def watermarks(kafka: Kafka, topic: str, partitions: Collection[int] | None = None) -> dict[int, tuple[int, int]]:
    """Partition → offset of its oldest message and the offset after its newest; None = all partitions.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic.
    """
    consumer = Consumer(_reader(kafka), logger=_LOG)
    try:
        wanted = _partitions(kafka, topic) if partitions is None else partitions
        return {p: _watermarks(consumer, topic, p) for p in sorted(wanted)}
    except KafkaException as error:
        raise _fault(error.args[0]) from None
    finally:
        consumer.close()


def read_to_end(kafka: Kafka, topic: str, starts: Mapping[int, int] | None = None) -> Iterator[Record]:
    """Every message that the topic holds now, as they come; in order within a partition. Joins no consumer group.

    Args:
        kafka: the cluster.
        topic: to read.
        starts: partition → first offset to read; None = all partitions from their oldest message.

    Raises:
        TransientError: Kafka is away or does not answer for 30 seconds.
        FatalError: there is no such topic.
    """
    marks = watermarks(kafka, topic, None if starts is None else starts.keys())
    begin = {p: low if starts is None else max(low, starts[p]) for p, (low, _) in marks.items()}
    ends = {p: end for p, (_, end) in marks.items() if end > begin[p]}
    consumer = Consumer(_reader(kafka), logger=_LOG)
    try:
        assigned = [TopicPartition(topic, p, begin[p]) for p in ends]
        consumer.assign(assigned)
        quiet_since = time.monotonic()
        while ends:
            for raw in consumer.consume(1000, timeout=0.2):
                quiet_since = time.monotonic()
                error = raw.error()
                if error is None:
                    yield _record(raw)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise _fault(error)
            positions = {tp.partition: tp.offset for tp in consumer.position(assigned)}
            # By position, not by the last offset seen: markers and compaction leave gaps at the end.
            ends = {p: end for p, end in ends.items() if positions[p] < end}
            if time.monotonic() - quiet_since > 3 * ADMIN_TIMEOUT:
                raise TransientError("Kafka", f"{topic}: no message for {3 * ADMIN_TIMEOUT:.0f} s before its end")
    except KafkaException as error:
        raise _fault(error.args[0]) from None
    finally:
        consumer.close()


def follow(kafka: Kafka, topics: Sequence[str], from_beginning: bool = False) -> Iterator[Record | None]:
    """Messages as they arrive, for ever; None whenever none arrived for 0.2 s, so that a caller can look around."""
    consumer = Consumer(_reader(kafka), logger=_LOG)
    try:
        starts = []
        for topic in topics:
            for partition in _partitions(kafka, topic):
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
                    yield _record(raw)
                elif error.fatal() or (not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN):
                    raise _fault(error)
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ADMIN_TIMEOUT)
    if found is None:
        raise TransientError("Kafka", f"{topic} [{partition}]: no answer within {ADMIN_TIMEOUT:.0f} s")
    low, high = found
    return int(low), int(high)


def _reader(kafka: Kafka) -> dict[str, Any]:
    return kafka.client(
        **{
            "group.id": "mindstream-reader",  # librdkafka wants one; nothing is committed and no group is joined
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
        }
    )


def _partitions(kafka: Kafka, topic: str) -> list[int]:
    found = metadata(kafka).topics
    if topic not in found:
        raise FatalError(f"Kafka has no topic {topic}; create the topics with: python -m streams topics create")
    return sorted(found[topic].partitions)


def _await_topics(kafka: Kafka, names: Sequence[str]) -> None:
    """A created topic takes a moment until every request sees it."""
    deadline = time.monotonic() + ADMIN_TIMEOUT
    while time.monotonic() < deadline:
        if set(names) <= set(metadata(kafka).topics):
            return
        time.sleep(0.05)
    raise TransientError("Kafka", "the topics were created but do not appear")


def _record(raw: RawMessage) -> Record:
    topic, partition, offset = raw.topic(), raw.partition(), raw.offset()
    assert topic is not None and partition is not None and offset is not None  # set on consumed messages
    message = Message(topic, partition, offset, _bytes(raw.key()), _bytes(raw.value()))
    headers = cast("list[tuple[str, bytes | None]]", raw.headers() or [])
    return Record(message, {name: value or b"" for name, value in headers}, raw.timestamp()[1] / 1000)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _fault(error: KafkaError) -> TransientError | FatalError:
    if error.code() in _FATAL:
        return FatalError(f"Kafka refuses: {error.str()}; check kafka.* in the configuration and the access rights")
    return TransientError("Kafka", error.str())


_FATAL = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)


def _admin(kafka: Kafka) -> AdminClient:
    return AdminClient(kafka.client(), logger=_LOG)
