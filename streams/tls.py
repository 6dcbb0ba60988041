"""Servers that turn us away at the door, told apart from those that are away."""

from __future__ import annotations

import socket
import ssl

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from configs.schema import Kafka

#: Seconds to wait for the server's half of the handshake, or for the answer of a broker that has just cut us off.
_TIMEOUT = 2.0


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server listens there: a client without TLS is only cut off, as by one that is away.

    Nothing is sent to it but the handshake: it does not matter who it is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _TIMEOUT) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False


def turned_away(error: KafkaError) -> bool:
    """Whether a broker refuses our user, password or certificate, or we its certificate.

    A handshake that fails at its first step is a fault of transport to librdkafka; only OpenSSL's words tell.
    """
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or ":SSL routines:" in error.str()


def wrong_protocol(kafka: Kafka) -> str | None:
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
        AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0}).list_topics(timeout=_TIMEOUT)
    except KafkaException:
        return False
    return True
