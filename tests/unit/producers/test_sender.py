"""Sending to librdkafka's mock cluster: deliveries, failures, and faults of a broker."""

from __future__ import annotations

import time
from pathlib import Path
from zlib import crc32

import confluent_kafka as ck
import pytest

from configs.errors import FatalError, TransientError
from producers import replay
from producers.sender import Sender, send_all
from tests.unit.producers.mock_kafka import MockKafka, config


def test_keys_are_hashed_as_javas_client_hashes_them(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    # Java's murmur2("21") is -973932308 and murmur2("foobar") is -790332482 (Kafka's own UtilsTest); 31 bits, modulo 4.
    report = send_all(sender, [(b"21", b"x"), (b"foobar", b"x")], lambda _report: None)
    assert report.delivered == 2
    placed = {key: partition for partition, key, _ in kafka.read("clicks", 2)}
    assert placed == {b"21": (-973932308 & 0x7FFFFFFF) % 4, b"foobar": (-790332482 & 0x7FFFFFFF) % 4}


def test_keys_are_hashed_as_configured(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address, "topics.partitioner=crc32"))
    keys = [b"%d" % number for number in range(100)]
    assert send_all(sender, [(key, b"x") for key in keys], lambda _report: None).delivered == 100
    assert {key: partition for partition, key, _ in kafka.read("clicks", 100)} == {k: crc32(k) % 4 for k in keys}


def test_a_full_queue_waits_and_only_the_oversized_message_fails(kafka: MockKafka) -> None:
    settings = config(kafka.address, "topics.max_message_bytes=65536")
    sender = Sender(settings.kafka, settings.producer, settings.topics, "clicks")
    # More than librdkafka's queue of 100,000 holds.
    messages = [(b"k", b"x")] * 120_000 + [(b"k", b"x" * 70_000)]
    report = send_all(sender, messages, lambda _report: None)
    assert (report.sent, report.delivered, report.failed) == (120_001, 120_000, 1)


class SilentProducer:
    """A producer that accepts messages and never reports them, neither as delivered nor as failed."""

    purged = False

    def produce(self, *_: object, **__: object) -> None: ...

    def poll(self, _seconds: float) -> int:
        return 0

    def flush(self, _seconds: float) -> int:
        time.sleep(0.01)
        return 0 if self.purged else 3

    def purge(self) -> None:
        self.purged = True


def test_messages_without_a_delivery_report_count_as_failed(kafka: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(kafka.address, "producer.delivery_timeout=0.2")
    sender = Sender(settings.kafka, settings.producer, settings.topics, "clicks")
    monkeypatch.setattr(sender, "_producer", SilentProducer())
    monkeypatch.setattr("producers.sender.OVERDUE_S", 0.3)
    report = send_all(sender, [(b"k", b"x")] * 3, lambda _report: None)
    assert (report.sent, report.delivered, report.failed) == (3, 0, 3)
    assert 0.5 <= report.seconds < 5


def test_a_message_that_only_a_later_one_implies_counts_as_failed(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    sender.report.sent = 1
    sender._on_delivery(None, ck.Message(offset=-1))
    assert sender.finish().failed == 1
    assert "unknown whether this one was written" in next(iter(sender.report.reasons))


def test_settings_that_librdkafka_rejects_are_fatal(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    settings = config("127.0.0.1:1", "kafka.security_protocol=SSL", f"kafka.ca_file={path}")
    with pytest.raises(FatalError, match=r"configs/kafka\.yaml"):
        replay.clicks_sender(settings)


def test_a_handshake_that_fails_at_its_first_step_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka reports a transport error if the broker responds before its first poll."""
    sender = replay.clicks_sender(config("127.0.0.1:1", "producer.connect_timeout=0.1"))
    text = "sasl_ssl://127.0.0.1:1/bootstrap: error:0A000086:SSL routines::certificate verify failed"
    handshake = ck.KafkaError(ck.KafkaError._TRANSPORT, text)
    monkeypatch.setattr(sender, "_serve", lambda *_: sender._on_error(handshake))
    with pytest.raises(FatalError, match=r"certificate verify failed; check kafka:"):
        sender.connect()


def test_a_fatal_error_of_the_producer_ends_the_run(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    with pytest.raises(TransientError, match="run the command again"):
        sender._reject(ck.KafkaError(ck.KafkaError._FATAL))
    with pytest.raises(FatalError, match="needs Write on clicks"):
        sender._reject(ck.KafkaError(ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED))


def test_a_missing_right_stops_the_run(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    sender._on_delivery(ck.KafkaError(ck.KafkaError.TOPIC_AUTHORIZATION_FAILED), ck.Message())
    assert not sender.send(b"1", b"x")
    assert "this user needs Write on clicks" in next(iter(sender.finish().reasons))


def test_a_fatal_error_raised_through_a_callback_is_translated(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))

    def flush(_seconds: float) -> int:
        """Raise as confluent-kafka does when a callback runs while its exception is being raised."""
        raise SystemError from ck.KafkaException(ck.KafkaError(ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED))

    with pytest.raises(FatalError, match="needs Write on clicks"):
        sender._serve(flush, 0.1)
