"""Sending to one topic, and the account of what became of every message: shared by the replay and by the items.

1. `Sender.send` queues a message; when the queue is full it waits for room (the broker sets the pace).
2. librdkafka sends in order, idempotently, with acks=all, and retries until `producer.delivery_timeout`.
3. Every message ends as delivered (acknowledged by the broker) or as failed; `Sender.finish` waits for that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import confluent_kafka as ck

from configs.errors import FatalError, MindstreamError, TransientError
from configs.schema import Kafka, Producer, Topics
from streams.kafka.producer import PARTITIONER
from streams.kafka.refusals import is_refusal, protocol_mismatch

_UNHEARD = logging.getLogger("mindstream.unheard")
_UNHEARD.disabled = True

#: Seconds between two looks at the stop signal while waiting.
TICK = 0.1
#: Seconds after the delivery timeout until messages of which nothing is heard count as failed.
_OVERDUE = 10.0


@dataclass(slots=True)
class SendReport:
    """The account of one run. Whatever was sent is either delivered or failed.

    `refused`: this user may not write to the topic.
    """

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    seconds: float = 0.0
    malformed: int = 0
    refused: bool = False
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Delivered messages a second."""
        return self.delivered / self.seconds if self.seconds else 0.0


class Sender:
    """Sends to one topic and counts. Not for several threads, except for `stop`, which any may set."""

    def __init__(self, kafka: Kafka, producer: Producer, topics: Topics, topic: str) -> None:
        self.topic = topic
        self.stop = threading.Event()
        self.report = SendReport()
        self._kafka = kafka
        self._settings = producer
        self._last_error: ck.KafkaError | None = None
        self._started = time.monotonic()
        try:
            self._producer = ck.Producer(
                kafka.client(
                    **{
                        "client.id": "mindstream-producer",
                        "enable.idempotence": True,
                        "acks": "all",
                        "partitioner": PARTITIONER,
                        "linger.ms": producer.linger * 1000,
                        "compression.type": producer.compression,
                        "delivery.timeout.ms": round(producer.delivery_timeout * 1000),
                        "message.max.bytes": topics.max_message_bytes,
                        # Errors reach the user through `error_cb` and the report, once, not as a line a second.
                        "logger": _UNHEARD,
                        "error_cb": self._on_error,
                    }
                )
            )
        except ck.KafkaException as error:
            raise FatalError(f"{kafka.refusal(error.args[0].str())}; see configs/kafka.yaml") from None

    def connect(self) -> None:
        """Makes sure that a broker answers and has the topic.

        Raises:
            TransientError: no broker answered within `producer.connect_timeout`.
            FatalError: brokers refuse us (user, password, certificate, protocol), or the topic does not exist.
        """
        address = self._kafka.bootstrap_servers
        try:
            # The list of all topics: asking for one by name can make a broker create it, with the wrong settings.
            known = self._producer.list_topics(timeout=self._settings.connect_timeout).topics
        except ck.KafkaException as error:
            self._serve(self._producer.poll, 0)  # brings `_on_error` the reason
            reason = self._last_error or error.args[0]
            if is_refusal(reason):
                raise FatalError(self._kafka.refusal(reason.str())) from None
            if (wrong := protocol_mismatch(self._kafka)) is not None:
                raise FatalError(self._kafka.refusal(wrong)) from None
            raise TransientError(
                "Kafka",
                f"no broker answers at {address} ({reason.str()}). Is the address right (kafka.bootstrap_servers or "
                "MINDSTREAM_KAFKA), and does it run? "
                '`python -m embedded up` starts a broker on this machine; `eval "$(python -m embedded env)"` points a '
                "shell at the one that runs",
            ) from None
        if self.topic not in known:
            raise FatalError(
                f"the topic '{self.topic}' does not exist at {address}, or this user may not write to it; "
                "`python -m streams topics create` creates the topics"
            )
        self._started = time.monotonic()

    def send(self, key: bytes, value: bytes | None) -> bool:
        """Queues one message; None as value is a tombstone. False: stopped, the message was not queued.

        Raises:
            TransientError: the producer cannot go on; another run can.
            FatalError: this user may write to no topic.
        """
        while not self.stop.is_set():
            try:
                self._producer.produce(self.topic, value, key, on_delivery=self._on_delivery)
            except BufferError:
                self._serve(self._producer.poll, TICK)  # full: wait until acknowledgements make room
                continue
            except ck.KafkaException as error:
                self._refused(error.args[0])
                return True
            self.report.sent += 1
            self._serve(self._producer.poll, 0)
            return True
        return False

    def wait_until(self, moment: float) -> bool:
        """Waits until `time.monotonic()` reaches `moment`, handling acknowledgements. False: stopped."""
        while not self.stop.is_set():
            left = moment - time.monotonic()
            if left <= 0:
                return True
            if left < 0.001:  # `poll` counts in milliseconds: it would return at once and keep a core busy
                time.sleep(left)
            else:
                self._serve(self._producer.poll, min(left, TICK))
        return False

    def finish(self) -> SendReport:
        """Waits until each message is delivered or failed; after `stop`, at most `producer.stop_timeout` seconds."""
        stop_seen: float | None = None
        left, moved = -1, time.monotonic()
        while (waiting := self._serve(self._producer.flush, TICK)) > 0:
            now = time.monotonic()
            if waiting != left:
                left, moved = waiting, now
            if self.stop.is_set():
                stop_seen = stop_seen or now
            # librdkafka gives up on each message after the delivery timeout; seldom, when the broker goes while the
            # first ones are on their way, it never does.
            late = now - moved > self._settings.delivery_timeout + _OVERDUE
            if late or (stop_seen is not None and now - stop_seen > self._settings.stop_timeout):
                self._producer.purge()
                self._serve(self._producer.flush, 1)
                break
        # Each message has its callback by now; anything else would be a loss that must not pass as success.
        self.report.failed = self.report.sent - self.report.delivered
        self.report.seconds = time.monotonic() - self._started
        return self.report

    def _on_delivery(self, error: ck.KafkaError | None, _message: ck.Message) -> None:
        if error is None:
            self.report.delivered += 1
        else:
            self.report.failed += 1
            reason = error.str()
            if error.code() == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
                reason += f"; this user needs Write on {self.topic}"
                self.report.refused = True
                self.stop.set()  # it is the same for every message
            elif error.code() == ck.KafkaError.INVALID_TIMESTAMP:
                reason += "; this machine's clock is wrong, or set message.timestamp.type=LogAppendTime on the topic"
            self.report.reasons[reason] += 1

    def _on_error(self, error: ck.KafkaError) -> None:
        # "All brokers down" follows the error that says why; keep the latter.
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error

    def _serve(self, call: Callable[[float], int], seconds: float) -> int:
        """`poll` or `flush`: they handle acknowledgements, and raise what ends an idempotent producer for good."""
        try:
            return call(seconds)
        except ck.KafkaException as error:
            raise self._ended(error.args[0]) from None
        except SystemError as error:  # the same, when a callback of ours ran in between
            if not isinstance(error.__cause__, ck.KafkaException):
                raise
            raise self._ended(error.__cause__.args[0]) from None

    def _ended(self, error: ck.KafkaError) -> MindstreamError:
        if error.code() == ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return FatalError(f"Kafka refuses: {error.str()}; this user needs Write on {self.topic}")
        return TransientError("Kafka", f"the producer cannot go on: {error.str()}; start the command again")

    def _refused(self, error: ck.KafkaError) -> None:
        if error.code() != ck.KafkaError.MSG_SIZE_TOO_LARGE:
            self._serve(self._producer.poll, TICK)  # of a fatal error, `produce` does not say why; this raises it
            raise self._ended(error)
        self.report.sent += 1
        self.report.failed += 1
        self.report.reasons[error.str()] += 1


def send_all(
    sender: Sender, messages: Iterable[tuple[bytes, bytes | None]], on_progress: Callable[[SendReport], None]
) -> SendReport:
    """Sends (key, value) pairs until they end or the sender is stopped, and waits for the acknowledgements.

    `on_progress` is called about ten times a second, at the latest at the next message.
    """
    shown = time.monotonic()
    for key, value in messages:
        if not sender.send(key, value):
            break
        now = time.monotonic()
        if now - shown >= TICK:
            on_progress(sender.report)
            shown = now
    report = sender.finish()
    on_progress(report)
    return report
