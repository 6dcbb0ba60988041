"""Sending to Kafka with acknowledgement, through confluent-kafka's idempotent producer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as RawMessage

from configs.schema import Kafka
from streams.errors import TransientError
from streams.kafka import fault
from streams.messages import PARTITIONER
from streams.ports import Output

_LOG = logging.getLogger("mindstream.kafka")

#: For librdkafka: the partitioner decides.
_BY_KEY = -1
#: Seconds until an unacknowledged message counts as failed. Longer than a leader election takes.
DELIVERY_TIMEOUT = 30.0
#: Seconds after that until messages of which nothing is heard count as failed.
_OVERDUE = 10.0


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
        """See `streams.ports.Outbox.send`."""
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
        try:
            silent = self._producer.flush(DELIVERY_TIMEOUT + _OVERDUE)
        except SystemError as error:
            # So confluent-kafka reports a signal that arrives during a callback; nothing else is raised in ours.
            raise KeyboardInterrupt from error
        if silent or any(error.fatal() for error, _ in errors):
            # An idempotent producer that lost its place in the sequence never recovers. And librdkafka gives up on each
            # message after the delivery timeout; seldom, when a broker goes, it never does. The batch is sent again.
            self._producer.purge()
            self._producer = self._new_producer()
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
                self._producer.poll(0.1)
            except KafkaException as error:
                raise fault(error.args[0], output.topic) from None
            else:
                return
