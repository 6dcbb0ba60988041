"""Sending to Kafka with acknowledgement, through confluent-kafka's idempotent producer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as RawMessage

from configs.errors import TransientError
from configs.schema import Kafka
from streams.kafka.client import fault
from streams.ports import Output

#: How librdkafka hashes keys, in every producer: else one user's clicks land in two partitions. As Kafka's Java clients
#: do; librdkafka's own default differs.
PARTITIONER = "murmur2_random"

_LOG = logging.getLogger("mindstream.kafka")

#: For librdkafka: the partitioner decides.
_BY_KEY = -1
#: Seconds until an unacknowledged message counts as failed. Longer than a leader election takes.
DELIVERY_TIMEOUT = 30.0
#: Seconds after that until messages of which nothing is heard count as failed.
_OVERDUE = 10.0


class KafkaRecordProducer:
    """The `RecordProducer` over an idempotent producer. For one thread; each agent has its own.

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
                    # Nothing leaves while a batch is handed over, message by message; `flush` then sends all at once,
                    # without lingering.
                    "linger.ms": 50,
                    "partitioner": PARTITIONER,
                    "delivery.timeout.ms": int(DELIVERY_TIMEOUT * 1000),
                    "message.max.bytes": self._max_message_bytes,
                }
            ),
            logger=_LOG,
        )

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        """See `streams.ports.RecordProducer.send`."""
        offsets = [-1] * len(outputs)
        errors: list[tuple[KafkaError, str]] = []

        for place, output in enumerate(outputs):

            def delivered(
                error: KafkaError | None, message: RawMessage, place: int = place, topic: str = output.topic
            ) -> None:
                if error is not None:
                    errors.append((error, topic))
                else:
                    offset = message.offset()
                    offsets[place] = -1 if offset is None else offset

            self._produce(output, delivered)
        produced()
        silent = self._serve(self._producer.flush, DELIVERY_TIMEOUT + _OVERDUE)
        if silent:
            # librdkafka gives up on each message after the delivery timeout; seldom, when a broker goes, it never does.
            self._replace()
        if errors:
            raise fault(*errors[0])
        if silent:
            raise TransientError("Kafka", f"nothing is heard of {silent} messages")
        return offsets

    def _produce(self, output: Output, delivered: Any) -> None:
        partition = _BY_KEY if output.partition is None else output.partition
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    output.value,
                    output.key,
                    partition,
                    on_delivery=delivered,
                    headers=list(output.headers),
                )
            except BufferError:  # the local queue is full: let deliveries make room
                self._serve(self._producer.poll, 0.1)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._FATAL:
                    self._serve(self._producer.poll, 0)  # raises the reason, if nobody has been told of it
                    self._replace()
                raise fault(error.args[0], output.topic) from None
            else:
                return

    def _serve(self, call: Callable[[float], int], seconds: float) -> int:
        """`poll` or `flush`: they handle deliveries, and raise what ends an idempotent producer for good."""
        try:
            return call(seconds)
        except KafkaException as error:
            ended = error
        except SystemError as error:  # so confluent-kafka reports what was raised while a callback of ours ran
            if not isinstance(error.__cause__, KafkaException):
                raise KeyboardInterrupt from error  # a signal; nothing else is raised in ours
            ended = error.__cause__
        self._replace()
        raise fault(ended.args[0])

    def _replace(self) -> None:
        """Give the producer up, with all that it still has to send: the batch is sent again by another."""
        self._producer.purge()
        self._producer = self._new_producer()
