"""Send messages to one topic, and count deliveries and failures: shared by `producers.replay` and `producers.items`.

1. `Sender.send` queues a message; while the queue is full it waits for room, so that the broker sets the pace.
2. librdkafka sends in order, idempotently, with acks=all, and retries until `producer.delivery_timeout`.
3. Every message ends as delivered (acknowledged by all in-sync replicas) or as failed; `Sender.finish` waits for that.
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
from streams.kafka.producer import OVERDUE_S, UNKNOWN_DELIVERY, acknowledged_offset, idempotent_producer, serve
from streams.kafka.refusals import is_refusal, protocol_mismatch

#: librdkafka's errors reach the user through `error_cb` and the report, once, and not as a log line per second.
_DISCARDED = logging.getLogger("mindstream.discarded")
_DISCARDED.disabled = True

#: Seconds between two checks of the stop event while waiting.
_POLL_INTERVAL_S = 0.1
#: Seconds between two calls of `on_progress`.
_PROGRESS_INTERVAL_S = 0.1
#: Seconds to wait for the delivery callbacks of purged messages.
_PURGE_TIMEOUT_S = 1.0


@dataclass(slots=True)
class SendReport:
    """Counts of one run. At its end, each message that was sent is either delivered or failed.

    Attributes:
        seconds: from the connection to the end of the run.
        refused: whether a message failed because this user may not write to the topic.
        reasons: number of failed messages by error text.
    """

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    seconds: float = 0.0
    refused: bool = False
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Delivered messages per second."""
        return self.delivered / self.seconds if self.seconds else 0.0


class Sender:
    """Sends messages to one topic and counts them.

    For one thread, except that any thread may set `stop`, which ends the run.
    """

    def __init__(self, kafka: Kafka, producer: Producer, topics: Topics, topic: str) -> None:
        self.topic = topic
        self.stop = threading.Event()
        self.report = SendReport()
        self._kafka = kafka
        self._settings = producer
        self._last_error: ck.KafkaError | None = None
        self._started = time.monotonic()
        try:
            self._producer = idempotent_producer(
                kafka,
                linger_s=producer.linger,
                delivery_timeout_s=producer.delivery_timeout,
                max_message_bytes=topics.max_message_bytes,
                partitioner=topics.partitioner,
                logger=_DISCARDED,
                **{
                    "client.id": "mindstream-producer",
                    "compression.type": producer.compression,
                    "error_cb": self._on_error,
                },
            )
        except ck.KafkaException as error:
            raise FatalError(f"{kafka.refusal_text(error.args[0].str())}; see configs/kafka.yaml") from None

    def connect(self) -> None:
        """Check that a broker answers and has the topic.

        Raises:
            TransientError: no broker answered within `producer.connect_timeout`.
            FatalError: brokers refuse this client (user, password, certificate, protocol), or the topic does not exist.
        """
        address = self._kafka.bootstrap_servers
        try:
            # Request all topics: a request for one by name can make the broker create it, with the wrong settings.
            known = self._producer.list_topics(timeout=self._settings.connect_timeout).topics
        except ck.KafkaException as error:
            self._serve(self._producer.poll, 0)  # calls `_on_error` with the reason
            reason = self._last_error or error.args[0]
            if is_refusal(reason):
                raise FatalError(self._kafka.refusal_text(reason.str())) from None
            if (mismatch := protocol_mismatch(self._kafka)) is not None:
                raise FatalError(self._kafka.refusal_text(mismatch)) from None
            raise TransientError(
                "Kafka",
                f"no broker answers at {address} ({reason.str()}). Is the address right (kafka.bootstrap_servers or "
                "MINDSTREAM_KAFKA), and does it run? `python -m embedded up` starts a broker on this machine; "
                '`eval "$(python -m embedded env)"` sets the variables for it',
            ) from None
        if self.topic not in known:
            raise FatalError(
                f"the topic '{self.topic}' does not exist at {address}, or this user may not write to it; "
                "`python -m streams topics create` creates the topics"
            )
        self._started = time.monotonic()

    def send(self, key: bytes, value: bytes | None) -> bool:
        """Queue one message; None as value is a tombstone.

        Returns:
            False if the run was stopped: the message was not queued.

        Raises:
            TransientError: the producer cannot send any more; another run can.
            FatalError: this user has no right to write.
        """
        while not self.stop.is_set():
            try:
                self._producer.produce(self.topic, value, key, on_delivery=self._on_delivery)
            except BufferError:
                self._serve(self._producer.poll, _POLL_INTERVAL_S)  # the queue is full: deliveries make room
                continue
            except ck.KafkaException as error:
                self._reject(error.args[0])
                return True
            self.report.sent += 1
            self._serve(self._producer.poll, 0)
            return True
        return False

    def wait_until(self, moment: float) -> bool:
        """Wait until `time.monotonic()` reaches `moment`, handling deliveries. Return False if the run was stopped."""
        while not self.stop.is_set():
            left = moment - time.monotonic()
            if left <= 0:
                return True
            if left < 0.001:  # `poll` counts in milliseconds: it would return at once, in a busy loop
                time.sleep(left)
            else:
                self._serve(self._producer.poll, min(left, _POLL_INTERVAL_S))
        return False

    def finish(self) -> SendReport:
        """Wait until each message is delivered or failed; after `stop`, at most `producer.stop_timeout` seconds."""
        stopped_at: float | None = None
        remaining, progress_at = -1, time.monotonic()
        while (unreported := self._serve(self._producer.flush, _POLL_INTERVAL_S)) > 0:
            now = time.monotonic()
            if unreported != remaining:
                remaining, progress_at = unreported, now
            if self.stop.is_set():
                stopped_at = stopped_at or now
            # librdkafka fails each message after the delivery timeout; rarely, when the broker goes down while the
            # first messages are in flight, it never does.
            overdue = now - progress_at > self._settings.delivery_timeout + OVERDUE_S
            if overdue or (stopped_at is not None and now - stopped_at > self._settings.stop_timeout):
                self._producer.purge()
                self._serve(self._producer.flush, _PURGE_TIMEOUT_S)
                break
        # Each message has had its callback by now; a message without one must not count as delivered.
        self.report.failed = self.report.sent - self.report.delivered
        self.report.seconds = time.monotonic() - self._started
        return self.report

    def _on_delivery(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is None and acknowledged_offset(message) is not None:
            self.report.delivered += 1
        elif error is None:
            self.report.failed += 1
            self.report.reasons[UNKNOWN_DELIVERY] += 1
        else:
            self.report.failed += 1
            reason = error.str()
            if error.code() == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
                reason += f"; this user needs Write on {self.topic}"
                self.report.refused = True
                self.stop.set()  # every message would fail like this
            elif error.code() == ck.KafkaError.INVALID_TIMESTAMP:
                reason += "; this machine's clock is wrong, or set message.timestamp.type=LogAppendTime on the topic"
            self.report.reasons[reason] += 1

    def _on_error(self, error: ck.KafkaError) -> None:
        # "All brokers down" follows the error that gives the reason: keep that one.
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error

    def _serve(self, call: Callable[[float], int], timeout_s: float) -> int:
        """Call `poll` or `flush` of the producer, which run the callbacks.

        Raises:
            TransientError, FatalError: see `_fatal_error`.
        """
        try:
            return serve(call, timeout_s)
        except ck.KafkaException as error:
            raise self._fatal_error(error.args[0]) from None

    def _fatal_error(self, error: ck.KafkaError) -> MindstreamError:
        """Return the error for a producer that cannot send any more."""
        if error.code() == ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return FatalError(f"Kafka refuses: {error.str()}; this user needs Write on {self.topic}")
        return TransientError("Kafka", f"the producer cannot send any more: {error.str()}; run the command again")

    def _reject(self, error: ck.KafkaError) -> None:
        """Count a message that librdkafka did not queue, or raise if it accepts no more messages."""
        if error.code() != ck.KafkaError.MSG_SIZE_TOO_LARGE:
            self._serve(self._producer.poll, _POLL_INTERVAL_S)  # raises the reason, which `produce` does not give
            raise self._fatal_error(error)
        self.report.sent += 1
        self.report.failed += 1
        self.report.reasons[error.str()] += 1


def send_all(
    sender: Sender, messages: Iterable[tuple[bytes, bytes | None]], on_progress: Callable[[SendReport], None]
) -> SendReport:
    """Send (key, value) pairs until they end or the sender is stopped, and wait for the acknowledgements.

    `on_progress` is called about ten times a second, but only when a message is sent, and at the end.
    """
    reported_at = time.monotonic()
    for key, value in messages:
        if not sender.send(key, value):
            break
        now = time.monotonic()
        if now - reported_at >= _PROGRESS_INTERVAL_S:
            on_progress(sender.report)
            reported_at = now
    report = sender.finish()
    on_progress(report)
    return report
