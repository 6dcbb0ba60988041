"""Brokers that refuse this client, told apart from brokers that are unavailable."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from configs.schema import Kafka
from streams.tls import HANDSHAKE_TIMEOUT, speaks_tls


def is_refusal(error: KafkaError) -> bool:
    """Whether a broker refuses our user, password or certificate, or we its certificate.

    A handshake that fails at its first step is a fault of transport to librdkafka; only OpenSSL's words tell.
    """
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or ":SSL routines:" in error.str()


def protocol_mismatch(kafka: Kafka) -> str | None:
    """What is wrong with TLS, when brokers seem to be away; None = nothing, they are away."""
    if kafka.uses_tls:
        return "it does not speak TLS, and we do" if _answers_without_tls(kafka) else None
    addresses = [server.rpartition(":") for server in kafka.bootstrap_servers.split(",")]
    if any(speaks_tls(host, int(port)) for host, _, port in addresses):
        return "it speaks TLS, and we do not"
    return None


def _answers_without_tls(kafka: Kafka) -> bool:
    """Whether brokers answer a client without TLS and user: a TLS client is only cut off, as by one that is away."""
    try:
        AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0}).list_topics(
            timeout=HANDSHAKE_TIMEOUT
        )
    except KafkaException:
        return False
    return True
