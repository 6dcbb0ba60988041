"""confluent-kafka's clients: settings of readers, the cluster's metadata, and errors in this project's terms."""

from __future__ import annotations

import logging
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from configs.errors import FatalError, TransientError
from configs.schema import Kafka
from streams.kafka.refusals import is_refusal, protocol_mismatch

_LOG = logging.getLogger("mindstream.kafka")

#: Seconds to wait for an answer to a metadata or admin request.
ADMIN_TIMEOUT_S = 10.0
#: Seconds between two checks for errors that librdkafka has reported.
_POLL_INTERVAL_S = 0.05


def metadata(kafka: Kafka) -> Any:
    """Return the cluster's metadata (confluent-kafka's `ClusterMetadata`): the topics that this user may see.

    Call it only at the start: while a worker runs, a broker's refusal counts as transient, because brokers also refuse
    for a moment while passwords are changed or their user directory is unavailable.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses this client's user, password, certificate or protocol.
    """
    # librdkafka never gives up on a broker that refuses it, and its requests only time out; it reports the reason only
    # to the callback. Its log would repeat it for each attempt.
    reasons: list[KafkaError] = []
    try:
        client = AdminClient(kafka.client_settings(error_cb=reasons.append, log_level=0))
    except KafkaException as error:
        raise FatalError(kafka.refusal_text(error.args[0].str())) from None
    servers = kafka.bootstrap_servers.split(",")
    answer = client.describe_cluster(request_timeout=ADMIN_TIMEOUT_S)
    while not answer.done():
        client.poll(_POLL_INTERVAL_S)
        refused = [reason for reason in reasons if is_refusal(reason)]
        if len(refused) >= len(servers):  # librdkafka has tried them one after the other
            raise FatalError(kafka.refusal_text(refused[-1].str()))
    try:
        answer.result()
        return client.list_topics(timeout=ADMIN_TIMEOUT_S)
    except KafkaException as error:
        # "All brokers down" follows the error that gives the reason.
        last = [error.args[0], *(r for r in reasons if r.code() != KafkaError._ALL_BROKERS_DOWN)][-1]
    if (mismatch := protocol_mismatch(kafka)) is not None:
        raise FatalError(kafka.refusal_text(mismatch))
    raise TransientError("Kafka", f"{kafka.bootstrap_servers}: {last.str()} ({kafka.security_protocol})")


def admin_client(kafka: Kafka) -> AdminClient:
    """Return a client for admin requests. Keep a reference to it: deleting it cancels its futures."""
    return AdminClient(kafka.client_settings(), logger=_LOG)


def reader_settings(kafka: Kafka, group: str = "mindstream-reader", **settings: Any) -> dict[str, Any]:
    """Return librdkafka's settings for a consumer that joins no group and reads the messages that the worker reads."""
    return kafka.client_settings(
        **{
            "group.id": group,  # required by librdkafka; nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            # With librdkafka's default, an open transaction would hide the end of the topic.
            "isolation.level": "read_uncommitted",
        }
        | settings
    )


def is_harmless(error: KafkaError) -> bool:
    """Return whether a reader that joins no group may ignore this error.

    librdkafka looks for the coordinator of `group.id` even then, and reports an error if the user has no rights to
    that group; none are needed.
    """
    return error.code() in (KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED)


def translate_error(error: KafkaError, topic: str | None = None) -> TransientError | FatalError:
    """Convert librdkafka's error to a TransientError, or to a FatalError if a retry cannot succeed.

    The text of a FatalError names `topic`.
    """
    if error.code() in _FATAL:
        about = f"{topic}: {error.str()}" if topic else error.str()
        return FatalError(f"Kafka refuses: {about}; check kafka.* in the configuration and the access rights")
    return TransientError("Kafka", error.str())


_FATAL = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
