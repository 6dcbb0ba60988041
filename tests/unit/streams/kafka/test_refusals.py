"""Brokers that refuse this client, as opposed to brokers that are unavailable."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

import streams.kafka.refusals
from configs.loader import load_worker
from streams.kafka.refusals import is_refusal, protocol_mismatch


def test_a_handshake_that_fails_at_its_first_step_is_a_refusal() -> None:
    """librdkafka reports it as a transport error."""
    text = "sasl_ssl://127.0.0.1:1/bootstrap: error:0A000086:SSL routines::certificate verify failed"
    assert is_refusal(KafkaError(KafkaError._TRANSPORT, text))
    assert is_refusal(KafkaError(KafkaError._SSL))
    assert is_refusal(KafkaError(KafkaError._AUTHENTICATION))
    assert not is_refusal(KafkaError(KafkaError._TRANSPORT, "Connection refused"))


@pytest.mark.parametrize("tls", [True, False])
def test_a_client_without_tls_recognizes_a_broker_with_tls(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    asked: list[tuple[str, int]] = []

    def speaks_tls(host: str, port: int) -> bool:
        asked.append((host, port))
        return tls and port == 2

    monkeypatch.setattr(streams.kafka.refusals, "speaks_tls", speaks_tls)
    found = protocol_mismatch(load_worker(None, ["kafka.bootstrap_servers=a:1,b:2"], {}).kafka)
    assert (found is not None and found.startswith("it speaks TLS")) is tls
    assert asked == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("answers", [True, False])
def test_a_client_with_tls_recognizes_a_broker_without(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    monkeypatch.setattr(streams.kafka.refusals, "_answers_without_tls", lambda _: answers)
    found = protocol_mismatch(load_worker(None, ["kafka.security_protocol=SSL"], {}).kafka)
    assert (found is not None and found.startswith("it does not speak TLS")) is answers
