"""Idempotent producers over confluent-kafka: the settings that all of them share, and the workers' own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as RawMessage

from configs.errors import TransientError
from configs.schema import Kafka, Partitioner
from streams.kafka.client import translate_error
from streams.partitioning import LIBRDKAFKA
from streams.ports import Output

_LOG = logging.getLogger("mindstream.kafka")

#: Seconds until an unacknowledged message of a worker counts as failed. Longer than a leader election takes.
_DELIVERY_TIMEOUT_S = 30.0
#: Seconds after the delivery timeout until messages without a delivery report count as failed.
OVERDUE_S = 10.0
#: Why a message without an offset (`acknowledged_offset`) counts as failed.
UNKNOWN_DELIVERY = "a later message was acknowledged, but it is unknown whether this one was written"
#: Seconds to wait for room in librdkafka's queue before trying again.
_QUEUE_FULL_WAIT_S = 0.1
#: librdkafka's number for "the partitioner chooses the partition".
_PARTITION_BY_KEY = -1


def idempotent_producer(
    kafka: Kafka,
    *,
    linger_s: float,
    delivery_timeout_s: float,
    max_message_bytes: int,
    partitioner: Partitioner,
    logger: logging.Logger = _LOG,
    **settings: Any,
) -> Producer:
    """Return a confluent-kafka producer whose messages are acknowledged by all in-sync replicas, in order, once.

    Args:
        kafka: the cluster.
        linger_s: seconds to wait for more messages before a request is sent.
        delivery_timeout_s: seconds until an unacknowledged message fails.
        max_message_bytes: the largest max.message.bytes of the topics that it writes to.
        partitioner: `topics.partitioner`.
        logger: receives librdkafka's log lines.
        settings: further settings of librdkafka.

    Raises:
        KafkaException: librdkafka rejects the settings.
    """
    shared = {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": LIBRDKAFKA[partitioner],
        "linger.ms": linger_s * 1000,
        "delivery.timeout.ms": round(delivery_timeout_s * 1000),
        "message.max.bytes": max_message_bytes,
    }
    return Producer(kafka.client_settings(**shared, **settings), logger=logger)


def serve(call: Callable[[float], int], timeout_s: float) -> int:
    """Call a producer's `poll` or `flush`, which run the delivery callbacks.

    Raises:
        KafkaException: the producer cannot send any more; librdkafka reports why only once, and only here.
    """
    try:
        return call(timeout_s)
    except SystemError as error:  # confluent-kafka wraps the same exception in it if a callback runs meanwhile
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def acknowledged_offset(message: RawMessage) -> int | None:
    """Return the offset of a message that was delivered without an error; None = it is unknown whether it was written.

    librdkafka also reports messages as delivered, without an offset, because a later one of the partition was accepted.
    Brokers before Kafka 4.5 accept any first message of a producer in a partition, so those before it may be missing:
    their request may have met a leader that was not ready (KAFKA-15591).
    """
    offset = message.offset()
    return None if offset is None or offset < 0 else offset


class KafkaRecordProducer:
    """The `RecordProducer` over an idempotent producer. For one thread; each agent has its own.

    Args:
        kafka: the cluster.
        max_message_bytes: the largest max.message.bytes of the topics that it writes to.
        partitioner: `topics.partitioner`.
        delivery_timeout_s: seconds until an unacknowledged message fails.
    """

    def __init__(
        self,
        kafka: Kafka,
        max_message_bytes: int,
        partitioner: Partitioner,
        delivery_timeout_s: float = _DELIVERY_TIMEOUT_S,
    ) -> None:
        self._kafka = kafka
        self._max_message_bytes = max_message_bytes
        self._partitioner: Partitioner = partitioner
        self._delivery_timeout_s = delivery_timeout_s
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        return idempotent_producer(
            self._kafka,
            # Long enough that nothing is sent while a batch is queued message by message; `flush` does not linger.
            linger_s=0.05,
            delivery_timeout_s=self._delivery_timeout_s,
            max_message_bytes=self._max_message_bytes,
            partitioner=self._partitioner,
        )

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        """See `streams.ports.RecordProducer.send`."""
        offsets = [-1] * len(outputs)
        errors: list[tuple[KafkaError, str]] = []
        unknown: set[str] = set()

        for number, output in enumerate(outputs):

            def on_delivery(
                error: KafkaError | None, message: RawMessage, number: int = number, topic: str = output.topic
            ) -> None:
                if error is not None:
                    errors.append((error, topic))
                elif (offset := acknowledged_offset(message)) is not None:
                    offsets[number] = offset
                else:
                    unknown.add(topic)

            self._produce(output, on_delivery)
        produced()
        unreported = self._serve(self._producer.flush, self._delivery_timeout_s + OVERDUE_S)
        if unreported:
            # librdkafka fails each message after the delivery timeout; rarely, when a broker goes down, it never does.
            self._replace()
        if errors:
            raise translate_error(*errors[0])
        if unreported:
            raise TransientError("Kafka", f"no delivery report for {unreported} messages")
        if unknown:
            raise TransientError("Kafka", f"{', '.join(sorted(unknown))}: {UNKNOWN_DELIVERY}")
        return offsets

    def _produce(self, output: Output, on_delivery: Any) -> None:
        partition = _PARTITION_BY_KEY if output.partition is None else output.partition
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    output.value,
                    output.key,
                    partition,
                    on_delivery=on_delivery,
                    headers=list(output.headers),
                )
            except BufferError:  # the local queue is full: deliveries make room
                self._serve(self._producer.poll, _QUEUE_FULL_WAIT_S)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._FATAL:
                    self._serve(self._producer.poll, 0)  # raises the reason, unless it was raised before
                    self._replace()
                raise translate_error(error.args[0], output.topic) from None
            else:
                return

    def _serve(self, call: Callable[[float], int], timeout_s: float) -> int:
        try:
            return serve(call, timeout_s)
        except KafkaException as error:
            reason = error
        except SystemError as error:
            raise KeyboardInterrupt from error  # only a signal can raise it: our callbacks raise nothing
        self._replace()
        raise translate_error(reason.args[0])

    def _replace(self) -> None:
        """Discard the producer with its queue: the batch is sent again by a new one."""
        self._producer.purge()
        self._producer = self._new_producer()
