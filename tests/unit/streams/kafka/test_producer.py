"""The record producer when librdkafka gives up; everything else is tested on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from streams.kafka.producer import KafkaRecordProducer
from streams.ports import Output


class SilentProducer:
    """Accepts messages, and never reports that they were delivered or have timed out."""

    purged = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None], **__: object) -> None:
        self.calls.append("produce")

    def flush(self, seconds: float) -> int:
        assert 30 < seconds < 60, "longer than the delivery timeout"
        self.calls.append("flush")
        return 2

    def purge(self) -> None:
        self.purged = True


def test_messages_without_a_delivery_report_fail_and_the_producer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = KafkaRecordProducer(
        load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6, "murmur2"
    )
    silent = SilentProducer()
    monkeypatch.setattr(producer, "_producer", silent)
    with pytest.raises(TransientError, match="no delivery report for 2 messages"):
        producer.send([Output("clicks", b"k", b"v")] * 2, lambda: silent.calls.append("produced"))
    assert silent.calls == ["produce", "produce", "produced", "flush"]
    assert silent.purged
    assert not isinstance(producer._producer, SilentProducer)


def test_an_unavailable_broker_is_reported_within_the_given_time() -> None:
    kafka = load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka
    producer = KafkaRecordProducer(kafka, 10**6, "murmur2", delivery_timeout_s=0.2)
    started = time.monotonic()
    with pytest.raises(TransientError, match="timed out"):
        producer.send([Output("clicks", b"k", b"v")])
    assert time.monotonic() - started < 10


class HalfSilentProducer(SilentProducer):
    """Rejects the first message, and never reports on the second."""

    rejected: Callable[[KafkaError, None], None] | None = None

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None], **__: object) -> None:
        self.rejected = self.rejected or on_delivery

    def flush(self, seconds: float) -> int:
        assert self.rejected is not None
        self.rejected(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), None)
        return 1


def test_a_reported_error_takes_precedence_over_missing_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = KafkaRecordProducer(
        load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6, "murmur2"
    )
    monkeypatch.setattr(producer, "_producer", HalfSilentProducer())
    with pytest.raises(FatalError, match="clicks"):
        producer.send([Output("clicks", b"k", b"v")] * 2)
    assert not isinstance(producer._producer, SilentProducer)


class _Delivered:
    """A delivered message with an offset, or without one."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


class ReportingProducer(SilentProducer):
    """Reports messages as delivered at given offsets, in the order of the calls."""

    def __init__(self, *offsets: int | None) -> None:
        super().__init__()
        self._offsets = list(offsets)
        self._reports: list[Callable[[], None]] = []

    def produce(self, *_: object, on_delivery: Callable[..., None], **__: object) -> None:
        message = _Delivered(self._offsets.pop(0))
        self._reports.append(lambda: on_delivery(None, message))

    def flush(self, seconds: float) -> int:
        for report in self._reports:
            report()
        return 0


@pytest.mark.parametrize("unknown", [None, -1, -1001])
def test_a_message_delivered_without_an_offset_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, unknown: int | None
) -> None:
    """librdkafka reports so what a later message implies, and brokers accept a later one without the first."""
    producer = KafkaRecordProducer(
        load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6, "murmur2"
    )
    monkeypatch.setattr(producer, "_producer", ReportingProducer(unknown, 0, 1))
    with pytest.raises(TransientError, match="clicks: a later message was acknowledged"):
        producer.send([Output("clicks", b"k", b"v")] * 3)
    monkeypatch.setattr(producer, "_producer", ReportingProducer(0, 1, 2))
    assert producer.send([Output("clicks", b"k", b"v")] * 3) == [0, 1, 2]


class DeadProducer:
    """Has a fatal error: raises the reason once, from `poll` or `flush`, and accepts no more messages."""

    purged = False

    def __init__(self, code: int, *, produces: bool, full: bool = False, in_callback: bool = False) -> None:
        self._reason: KafkaException | None = KafkaException(KafkaError(code, "the reason", fatal=True))
        self._produces = produces
        self._full = full
        self._in_callback = in_callback

    def produce(self, *_: object, **__: object) -> None:
        if self._full:
            raise BufferError
        if not self._produces:
            raise KafkaException(KafkaError(KafkaError._FATAL, "Fatal error"))

    def poll(self, _seconds: float) -> int:
        reason, self._reason = self._reason, None
        if reason is not None:
            if self._in_callback:
                raise SystemError("returned a result with an exception set") from reason
            raise reason
        return 0

    flush = poll

    def purge(self) -> None:
        self.purged = True


@pytest.mark.parametrize("in_callback", [False, True])
@pytest.mark.parametrize(("produces", "full"), [(True, False), (False, False), (False, True)])
def test_a_producer_with_a_fatal_error_is_replaced(
    monkeypatch: pytest.MonkeyPatch, produces: bool, full: bool, in_callback: bool
) -> None:
    producer = KafkaRecordProducer(
        load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6, "murmur2"
    )
    dead = DeadProducer(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, produces=produces, full=full, in_callback=in_callback)
    monkeypatch.setattr(producer, "_producer", dead)
    with pytest.raises(TransientError, match="the reason"):
        producer.send([Output("clicks", b"k", b"v")])
    assert dead.purged
    assert not isinstance(producer._producer, DeadProducer)


def test_a_producer_whose_fatal_error_was_raised_before_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = KafkaRecordProducer(
        load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6, "murmur2"
    )
    dead = DeadProducer(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, produces=False)
    dead._reason = None
    monkeypatch.setattr(producer, "_producer", dead)
    with pytest.raises(TransientError, match="Fatal error"):
        producer.send([Output("clicks", b"k", b"v")])
    assert not isinstance(producer._producer, DeadProducer)


def test_a_producer_without_rights_raises_a_fatal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = KafkaRecordProducer(
        load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6, "murmur2"
    )
    monkeypatch.setattr(producer, "_producer", DeadProducer(KafkaError.CLUSTER_AUTHORIZATION_FAILED, produces=False))
    with pytest.raises(FatalError, match="the reason"):
        producer.send([Output("clicks", b"k", b"v")])
