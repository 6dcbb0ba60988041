"""The project's topics: what they are called, how they must be, creating and checking them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from configs.errors import FatalError, TransientError
from configs.schema import Kafka, Topics
from streams.kafka.client import ADMIN_TIMEOUT, admin, fault, metadata

#: Bytes that a dead letter may have beyond the largest input message: its headers.
HEADER_BYTES = 2**20
#: Milliseconds until compaction may touch a changelog record. A worker that was paused may write an older record behind
#: a newer one; the owner repairs that within seconds, or at a take-over (`streams.state.restore`), and until then the
#: newer one has to stay.
COMPACTION_LAG = 10 * 60_000
#: Compaction lag and retention go by the broker's clock. A producer's may be wrong: Kafka 4 refuses what is more than
#: an hour ahead, and deletes early what lies far enough behind.
_BY_BROKER = {"message.timestamp.type": "LogAppendTime"}
#: What the histories rest on: without these settings records may go that are still needed.
_CHANGELOG = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACTION_LAG)} | _BY_BROKER


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must exist."""

    name: str
    partitions: int
    config: dict[str, str]


def changelog_topic(group: str) -> str:
    """Name of the histories' changelog, as Faust derives it from application and table."""
    return f"{group}-clicks-history-changelog"


def topic_specs(topics: Topics, group: str) -> list[TopicSpec]:
    """All topics of the project."""
    kept = _BY_BROKER | {"cleanup.policy": "delete", "retention.ms": str(int(topics.retention_days * 86_400_000))}
    compacted = _BY_BROKER | {"cleanup.policy": "compact"}
    large = {"max.message.bytes": str(topics.max_message_bytes)}
    larger = {"max.message.bytes": str(topics.max_message_bytes + HEADER_BYTES)}
    safe = {"min.insync.replicas": "2"} if topics.replication >= 3 else {}
    return [
        TopicSpec(topics.clicks, topics.partitions, kept | large | safe),
        TopicSpec(topics.items, topics.item_partitions, compacted | large | safe),
        TopicSpec(topics.recommendations, topics.partitions, kept | safe),
        TopicSpec(topics.dead_letters, topics.item_partitions, kept | larger | safe),
        TopicSpec(changelog_topic(group), topics.partitions, _CHANGELOG | safe),
    ]


def create_topics(kafka: Kafka, specs: Sequence[TopicSpec], replication: int) -> dict[str, bool]:
    """Create those topics that do not exist.

    Returns:
        Topic name → whether it was created now.

    Raises:
        TransientError: Kafka is away.
        FatalError: Kafka refuses, for example for lack of rights or of brokers for the replication.
    """
    wanted = [
        NewTopic(s.name, num_partitions=s.partitions, replication_factor=replication, config=s.config) for s in specs
    ]
    metadata(kafka)  # one clear error when Kafka is away, instead of one for each topic
    created: dict[str, bool] = {}
    client = admin(kafka)
    futures = client.create_topics(wanted, operation_timeout=ADMIN_TIMEOUT, request_timeout=ADMIN_TIMEOUT)
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
        TransientError: Kafka is away.
        FatalError: a topic is missing or has another number of partitions; the message says what mends it.
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
                f"topic {spec.name} has {count} partitions, the configuration says {spec.partitions}; set "
                "topics.partitions and topics.item_partitions to what Kafka has (histories lie in the partition of "
                "their clicks, so partitions cannot be added later)"
            )


def check_changelog(kafka: Kafka, topic: str) -> None:
    """Check the settings of the changelog that correctness rests on; somebody may have changed them, or made the topic.

    Raises:
        TransientError: Kafka is away.
        FatalError: they are others, or Kafka refuses to tell; the message says what mends it.
    """
    found = topic_settings(kafka, [topic])[topic]
    # More time before compaction does no harm.
    enough = int(found["min.compaction.lag.ms"]) >= COMPACTION_LAG
    wrong = {
        name: wanted
        for name, wanted in _CHANGELOG.items()
        if found[name] != wanted and not (enough and name == "min.compaction.lag.ms")
    }
    if wrong:
        has = ", ".join(f"{name}={found[name]}" for name in wrong)
        change = ",".join(f"{name}={wanted}" for name, wanted in wrong.items())
        raise FatalError(
            f"topic {topic} has {has}, with which histories can be lost; set them: kafka-configs --bootstrap-server "
            f"{kafka.bootstrap_servers} --alter --entity-type topics --entity-name {topic} --add-config {change}"
        )


def topic_settings(kafka: Kafka, topics: Collection[str]) -> dict[str, dict[str, str]]:
    """Topic → its settings, the broker's defaults included.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic, or Kafka refuses to tell.
    """
    if not topics:
        return {}
    client = admin(kafka)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    futures = client.describe_configs(resources, request_timeout=ADMIN_TIMEOUT)
    try:
        entries = {resource.name: future.result() for resource, future in futures.items()}
    except KafkaException as error:
        raise fault(error.args[0]) from None
    return {topic: {name: entry.value for name, entry in found.items()} for topic, found in entries.items()}


def topic_id(kafka: Kafka, topic: str) -> str:
    """The identity of a topic: another one of the same name, created later, has another id.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic.
    """
    client = admin(kafka)
    future = client.describe_topics(TopicCollection([topic]), request_timeout=ADMIN_TIMEOUT)[topic]
    try:
        return str(future.result().topic_id)
    except KafkaException as error:
        raise fault(error.args[0]) from None


def _await_topics(kafka: Kafka, names: Sequence[str]) -> None:
    """A created topic takes a moment until every request sees it."""
    deadline = time.monotonic() + ADMIN_TIMEOUT
    while time.monotonic() < deadline:
        if set(names) <= set(metadata(kafka).topics):
            return
        time.sleep(0.05)
    raise TransientError("Kafka", "the topics were created but do not appear")
