"""Reading Kafka with confluent-kafka, in our own terms: faults, metadata, reading to the end, following."""

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
ADMIN_TIMEOUT = 10.0
#: Seconds between two looks at what a client was told.
_TICK = 0.05


def metadata(kafka: Kafka) -> Any:
    """The cluster's topics, as far as this user may see them.

    To be called at the start: a worker that runs treats a broker's refusal as a fault that passes, because brokers
    refuse for a moment when passwords are changed or their user directory is away.

    Raises:
        TransientError: Kafka is away.
        FatalError: it is there and refuses us: user, password, certificate or protocol.
    """
    # A refused client tries for ever, and its requests only time out: why, librdkafka tells the callback alone. Its log
    # would say the same once for every try.
    reasons: list[KafkaError] = []
    try:
        client = AdminClient(kafka.client(error_cb=reasons.append, log_level=0))
    except KafkaException as error:
        raise FatalError(kafka.refusal(error.args[0].str())) from None
    servers = kafka.bootstrap_servers.split(",")
    answer = client.describe_cluster(request_timeout=ADMIN_TIMEOUT)
    while not answer.done():
        client.poll(_TICK)
        refused = [reason for reason in reasons if is_refusal(reason)]
        if len(refused) >= len(servers):  # it goes from one to the next
            raise FatalError(kafka.refusal(refused[-1].str()))
    try:
        answer.result()
        return client.list_topics(timeout=ADMIN_TIMEOUT)
    except KafkaException as error:
        # "All brokers down" follows the error that says why.
        last = [error.args[0], *(r for r in reasons if r.code() != KafkaError._ALL_BROKERS_DOWN)][-1]
    if (wrong := protocol_mismatch(kafka)) is not None:
        raise FatalError(kafka.refusal(wrong))
    raise TransientError("Kafka", f"{kafka.bootstrap_servers}: {last.str()} ({kafka.security_protocol})")


def reader(kafka: Kafka, group: str = "mindstream-reader", **settings: Any) -> dict[str, Any]:
    """librdkafka's settings for a consumer that joins no group and sees what the worker sees."""
    return kafka.client(
        **{
            "group.id": group,  # librdkafka wants one; nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            # Not librdkafka's default, with which a transaction that is open would hide the end.
            "isolation.level": "read_uncommitted",
        }
        | settings
    )


def harmless(error: KafkaError) -> bool:
    """Whether a reader that joins no group may pass it over.

    librdkafka looks for the coordinator of `group.id` all the same, and says so when the user has no rights to that
    group; none are needed.
    """
    return error.code() in (KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED)


def fault(error: KafkaError, topic: str | None = None) -> TransientError | FatalError:
    """librdkafka's error, about this topic, in our terms: whether trying again can help."""
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


def admin(kafka: Kafka) -> AdminClient:
    """A client for requests about topics. Keep it until its futures are done: they end with it."""
    return AdminClient(kafka.client(), logger=_LOG)
