"""Distinguish brokers that refuse this client from brokers that are unavailable."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from configs.schema import Kafka
from streams.tls import HANDSHAKE_TIMEOUT_S, speaks_tls


def is_refusal(error: KafkaError) -> bool:
    """Return whether a broker rejects our user, password or certificate, or we reject its certificate.

    librdkafka reports a handshake that fails at its first step as a transport error; only OpenSSL's text in it shows
    the reason.
    """
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or ":SSL routines:" in error.str()


def protocol_mismatch(kafka: Kafka) -> str | None:
    """Return in which way brokers that look unavailable disagree with this client about TLS; None if they agree."""
    if kafka.uses_tls:
        return "it does not speak TLS, and this client does" if _answers_without_tls(kafka) else None
    addresses = [server.rpartition(":") for server in kafka.bootstrap_servers.split(",")]
    if any(speaks_tls(host, int(port)) for host, _, port in addresses):
        return "it speaks TLS, and this client does not"
    return None


def _answers_without_tls(kafka: Kafka) -> bool:
    """Return whether brokers answer a client without TLS and user. To a client with TLS, they look unavailable."""
    try:
        AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0}).list_topics(
            timeout=HANDSHAKE_TIMEOUT_S
        )
    except KafkaException:
        return False
    return True
