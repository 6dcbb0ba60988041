"""The project's topics: their names and settings, and functions that create and check them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from configs.errors import FatalError, TransientError
from configs.schema import Kafka, Topics
from streams.kafka.client import ADMIN_TIMEOUT_S, admin_client, metadata, translate_error

#: Bytes that a dead letter may have beyond the largest input message: its headers.
DEAD_LETTER_HEADER_BYTES = 2**20
#: Milliseconds during which compaction must keep every changelog record. A worker that was paused may write an older
#: record after a newer one; the owner repairs that within seconds, or when it acquires the partition
#: (`streams.state.restore`), and needs the newer one until then.
COMPACTION_LAG_MS = 10 * 60_000
#: Compaction lag and retention go by the broker's clock, because a producer's clock may be wrong: Kafka 4 rejects
#: messages that are more than an hour ahead, and retention deletes messages that are far behind too early.
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
#: Settings that the histories rely on: without them, Kafka may delete records that are still needed.
_CHANGELOG_SETTINGS = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACTION_LAG_MS)} | _BROKER_TIME


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must exist."""

    name: str
    partitions: int
    config: dict[str, str]


def changelog_topic(group: str) -> str:
    """Return the name of the changelog topic of the histories: it has the form of Faust's changelog topics."""
    return f"{group}-clicks-history-changelog"


def topic_specs(topics: Topics, group: str) -> list[TopicSpec]:
    """Return all topics of the project."""
    kept = _BROKER_TIME | {"cleanup.policy": "delete", "retention.ms": str(int(topics.retention_days * 86_400_000))}
    compacted = _BROKER_TIME | {"cleanup.policy": "compact"}
    large = {"max.message.bytes": str(topics.max_message_bytes)}
    larger = {"max.message.bytes": str(topics.max_message_bytes + DEAD_LETTER_HEADER_BYTES)}
    safe = {"min.insync.replicas": "2"} if topics.replication >= 3 else {}
    return [
        TopicSpec(topics.clicks, topics.partitions, kept | large | safe),
        TopicSpec(topics.items, topics.item_partitions, compacted | large | safe),
        TopicSpec(topics.recommendations, topics.partitions, kept | safe),
        TopicSpec(topics.dead_letters, topics.item_partitions, kept | larger | safe),
        TopicSpec(changelog_topic(group), topics.partitions, _CHANGELOG_SETTINGS | safe),
    ]


def create_topics(kafka: Kafka, specs: Sequence[TopicSpec], replication: int) -> dict[str, bool]:
    """Create the topics that do not exist.

    Returns:
        Topic name → whether this call has created it.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses, for example because rights or brokers for the replication are missing.
    """
    wanted = [
        NewTopic(s.name, num_partitions=s.partitions, replication_factor=replication, config=s.config) for s in specs
    ]
    metadata(kafka)  # one clear error when Kafka is unavailable, instead of one for each topic
    created: dict[str, bool] = {}
    client = admin_client(kafka)
    futures = client.create_topics(wanted, operation_timeout=ADMIN_TIMEOUT_S, request_timeout=ADMIN_TIMEOUT_S)
    for name, future in futures.items():
        try:
            future.result()
            created[name] = True
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise FatalError(f"topic {name} cannot be created: {error.args[0].str()}") from None
            created[name] = False
    _await_topics(kafka, [s.name for s in specs])
    return created


def check_topics(kafka: Kafka, specs: Sequence[TopicSpec]) -> None:
    """Check that the topics exist with the wanted number of partitions.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: a topic is missing or has another number of partitions; the message names the remedy.
    """
    found = metadata(kafka).topics
    missing = [s.name for s in specs if s.name not in found]
    if missing:
        raise FatalError(
            f"Kafka has no topic {', '.join(missing)}, or this user has no rights to it; create the topics with: "
            "python -m streams topics create"
        )
    for spec in specs:
        count = len(found[spec.name].partitions)
        if count != spec.partitions:
            raise FatalError(
                f"topic {spec.name} has {count} partitions, but the configuration says {spec.partitions}; set "
                "topics.partitions and topics.item_partitions to Kafka's numbers (a history is in the partition of its "
                "clicks, so partitions cannot be added later)"
            )


def check_changelog(kafka: Kafka, topic: str) -> None:
    """Check the changelog's settings that correctness relies on: anyone may have changed them, or created the topic.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: a setting is wrong, or Kafka refuses the request; the message names the remedy.
    """
    found = topic_settings(kafka, [topic])[topic]
    # A longer lag is safe, too.
    lag_suffices = int(found["min.compaction.lag.ms"]) >= COMPACTION_LAG_MS
    wrong = {
        name: wanted
        for name, wanted in _CHANGELOG_SETTINGS.items()
        if found[name] != wanted and not (lag_suffices and name == "min.compaction.lag.ms")
    }
    if wrong:
        has = ", ".join(f"{name}={found[name]}" for name in wrong)
        change = ",".join(f"{name}={wanted}" for name, wanted in wrong.items())
        raise FatalError(
            f"topic {topic} has {has}, with which histories can be lost; fix it with: kafka-configs --bootstrap-server "
            f"{kafka.bootstrap_servers} --alter --entity-type topics --entity-name {topic} --add-config {change}"
        )


def topic_settings(kafka: Kafka, topics: Collection[str]) -> dict[str, dict[str, str]]:
    """Return topic → its settings, the broker's defaults included.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: there is no such topic, or Kafka refuses the request.
    """
    if not topics:
        return {}
    client = admin_client(kafka)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    futures = client.describe_configs(resources, request_timeout=ADMIN_TIMEOUT_S)
    try:
        entries = {resource.name: future.result() for resource, future in futures.items()}
    except KafkaException as error:
        raise translate_error(error.args[0]) from None
    return {topic: {name: entry.value for name, entry in found.items()} for topic, found in entries.items()}


def topic_id(kafka: Kafka, topic: str) -> str:
    """Return the id of a topic. If the topic is deleted and created again, it has another id.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: there is no such topic.
    """
    client = admin_client(kafka)
    future = client.describe_topics(TopicCollection([topic]), request_timeout=ADMIN_TIMEOUT_S)[topic]
    try:
        return str(future.result().topic_id)
    except KafkaException as error:
        raise translate_error(error.args[0]) from None


def _await_topics(kafka: Kafka, names: Sequence[str]) -> None:
    """Wait until the created topics appear in the metadata, which takes a moment."""
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while time.monotonic() < deadline:
        if set(names) <= set(metadata(kafka).topics):
            return
        time.sleep(0.05)
    raise TransientError("Kafka", "the topics were created, but the metadata does not show them yet")
