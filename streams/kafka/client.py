"""Reading Kafka with confluent-kafka, in our own terms: faults, metadata, reading to the end, following."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage
from confluent_kafka.admin import AdminClient

from configs.schema import Kafka
from streams.errors import FatalError, TransientError
from streams.ports import Message
from streams.tls import turned_away, wrong_protocol

_LOG = logging.getLogger("mindstream.kafka")

#: Seconds to wait for an answer to a metadata or admin request.
ADMIN_TIMEOUT = 10.0
#: Seconds between two looks at what a client was told.
_TICK = 0.05
#: Most log lines and the like that are taken from a client at a time.
_EVENTS = 1000


class Record(NamedTuple):
    """A message as the tools read it; headers only where asked for; written in seconds since 1970."""

    message: Message
    headers: dict[str, bytes]
    written: float


def metadata(kafka: Kafka) -> Any:
    """The cluster's topics, as far as this user may see them.

    To be called at the start: a worker that runs treats a broker's refusal as a fault that passes, because brokers
    refuse for a moment when passwords are changed or their user directory is away.

    Raises:
        TransientError: Kafka is away.
        FatalError: it is there and refuses us: user, password, certificate or protocol.
    """
    # A refused client tries for ever, and its requests only time out: why, librdkafka tells the callback alone. Its log
    # would say the same once for every try.
    reasons: list[KafkaError] = []
    try:
        client = AdminClient(kafka.client(error_cb=reasons.append, log_level=0))
    except KafkaException as error:
        raise FatalError(kafka.refusal(error.args[0].str())) from None
    servers = kafka.bootstrap_servers.split(",")
    answer = client.describe_cluster(request_timeout=ADMIN_TIMEOUT)
    while not answer.done():
        client.poll(_TICK)
        refused = [reason for reason in reasons if turned_away(reason)]
        if len(refused) >= len(servers):  # it goes from one to the next
            raise FatalError(kafka.refusal(refused[-1].str()))
    try:
        answer.result()
        return client.list_topics(timeout=ADMIN_TIMEOUT)
    except KafkaException as error:
        # "All brokers down" follows the error that says why.
        last = [error.args[0], *(r for r in reasons if r.code() != KafkaError._ALL_BROKERS_DOWN)][-1]
    if (wrong := wrong_protocol(kafka)) is not None:
        raise FatalError(kafka.refusal(wrong))
    raise TransientError("Kafka", f"{kafka.bootstrap_servers}: {last.str()} ({kafka.security_protocol})")


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


def reader(kafka: Kafka, group: str = "mindstream-reader", **settings: Any) -> dict[str, Any]:
    """librdkafka's settings for a consumer that joins no group and sees what the worker sees."""
    return kafka.client(
        **{
            "group.id": group,  # librdkafka wants one; nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            # Not librdkafka's default, with which a transaction that is open would hide the end.
            "isolation.level": "read_uncommitted",
        }
        | settings
    )


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


def harmless(error: KafkaError) -> bool:
    """Whether a reader that joins no group may pass it over.

    librdkafka looks for the coordinator of `group.id` all the same, and says so when the user has no rights to that
    group; none are needed.
    """
    return error.code() in (KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED)


def fault(error: KafkaError, topic: str | None = None) -> TransientError | FatalError:
    """librdkafka's error, about this topic, in our terms: whether trying again can help."""
    if error.code() in _FATAL:
        about = f"{topic}: {error.str()}" if topic else error.str()
        return FatalError(f"Kafka refuses: {about}; check kafka.* in the configuration and the access rights")
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


def admin(kafka: Kafka) -> AdminClient:
    """A client for requests about topics. Keep it until its futures are done: they end with it."""
    return AdminClient(kafka.client(), logger=_LOG)


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
