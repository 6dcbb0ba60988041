"""The project's topics: their names and settings, and functions that create and check them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from configs.errors import FatalError, TransientError
from configs.schema import Kafka, Topics
from streams.kafka.client import ADMIN_TIMEOUT_S, admin_client, metadata, translate_error
from streams.kafka.offsets import TopicOffsets

_DAY_MS = 86_400_000
#: Bytes that a dead letter may have beyond the largest input message: its headers.
DEAD_LETTER_HEADER_BYTES = 2**20
#: Milliseconds during which compaction must keep every changelog record. A worker that was paused may write an older
#: record after a newer one; the owner repairs that within seconds, or when it acquires the partition
#: (`streams.state.restore`), and needs the newer one until then.
COMPACTION_LAG_MS = 10 * 60_000
#: Compaction lag and retention go by the broker's clock, because a producer's clock may be wrong: Kafka 4 rejects
#: messages that are more than an hour ahead, and retention deletes messages that are far behind too early.
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
#: Milliseconds for which topics keep the message that removes an item or a recommendation; Kafka's default is a day. An
#: item worker that reads later learns of it when it compares rows with the topic; a service makes its copy again.
_REMOVAL_RETENTION_MS = 7 * _DAY_MS
_ALL_RECOMMENDATIONS_MS = _DAY_MS  # for so long, consumers find every one, not only the newest of each user
#: Settings that the histories rely on: without them, Kafka may delete records that are still needed.
_CHANGELOG_SETTINGS = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACTION_LAG_MS)} | _BROKER_TIME
#: A history is in the partition of its user's clicks. Partitions that are added move users away from their histories.
CLICK_PARTITIONS_REMEDY = (
    "set topics.partitions to Kafka's number. If partitions were added after clicks had been processed, histories are "
    "in the wrong partitions: set another worker.group, too, and run `python -m streams topics create`. Histories are "
    "then made again from the clicks that Kafka retains; clicks of users that moved become dead letters, to be sent "
    "back with `python -m streams deadletters replay`. Or have producers write to a new topic (topics.clicks), under "
    "another worker.group"
)
CHANGELOG_PARTITIONS_REMEDY = (
    "a changelog has as many partitions as its click topic, and none can be added or removed while it holds histories: "
    "set topics.partitions to the number of the click topic and, if that is not this topic's number, another "
    "worker.group; `python -m streams topics create` then creates a changelog for it"
)
ITEM_PARTITIONS_REMEDY = (
    "set topics.item_partitions to Kafka's number. If partitions were added, publish all items again (python -m "
    "producers.items --artifact DIR): the number decides which partition an item's messages belong to, and only within "
    "a partition they have an order"
)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must exist.

    Attributes:
        name: name of the topic.
        partitions: number of partitions with which it is created.
        config: settings with which it is created.
        remedy: what to do if it has another number of partitions; None = any number will do.
    """

    name: str
    partitions: int
    config: dict[str, str]
    remedy: str | None = None


class TopicIdentity(NamedTuple):
    """The topic that a name stands for.

    Attributes:
        id: a topic that is deleted and created again has another one.
        partitions: number of partitions; Kafka can only add some.
    """

    id: str
    partitions: int


def changelog_topic(group: str) -> str:
    """Return the name of the changelog topic of the histories: it has the form of Faust's changelog topics."""
    return f"{group}-clicks-history-changelog"


def items_group(group: str, model_version: str, collection: str) -> str:
    """Return the consumer group of the item agent: one for each collection, which is filled from the beginning.

    Args:
        group: `worker.group`.
        model_version: the model that the collection belongs to.
        collection: `streams.recall.ports.ItemTable.identity`.
    """
    return f"{group}-items-{model_version}-{collection}"


def topic_specs(topics: Topics, group: str) -> list[TopicSpec]:
    """Return all topics of the project."""
    kept = _BROKER_TIME | {"cleanup.policy": "delete", "retention.ms": str(int(topics.retention_days * _DAY_MS))}
    compacted = _BROKER_TIME | {"cleanup.policy": "compact"}
    newest = _BROKER_TIME | {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(int(topics.recommendation_retention_days * _DAY_MS)),
        **dict.fromkeys(("min.compaction.lag.ms", "segment.ms"), str(_ALL_RECOMMENDATIONS_MS)),
    }
    removals = {"delete.retention.ms": str(_REMOVAL_RETENTION_MS)}
    large = {"max.message.bytes": str(topics.max_message_bytes)}
    larger = {"max.message.bytes": str(topics.max_message_bytes + DEAD_LETTER_HEADER_BYTES)}
    safe = {"min.insync.replicas": "2"} if topics.replication >= 3 else {}
    return [
        TopicSpec(topics.clicks, topics.partitions, kept | large | safe, CLICK_PARTITIONS_REMEDY),
        TopicSpec(topics.items, topics.item_partitions, compacted | removals | large | safe, ITEM_PARTITIONS_REMEDY),
        TopicSpec(topics.recommendations, topics.partitions, newest | removals | safe),
        TopicSpec(topics.dead_letters, topics.item_partitions, kept | larger | safe),
        TopicSpec(changelog_topic(group), topics.partitions, _CHANGELOG_SETTINGS | safe, CHANGELOG_PARTITIONS_REMEDY),
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
    """Check that the topics exist, with the wanted number of partitions where that matters.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: a topic is missing or has another number of partitions; the message names the remedies.
    """
    found = metadata(kafka).topics
    missing = [s.name for s in specs if s.name not in found]
    if missing:
        raise FatalError(
            f"Kafka has no topic {', '.join(missing)}, or this user has no rights to it; create the topics with: "
            "python -m streams topics create"
        )
    counts = {spec.name: len(found[spec.name].partitions) for spec in specs}
    wrong = [
        f"topic {spec.name} has {counts[spec.name]} partitions, and the configuration {spec.partitions}: {spec.remedy}"
        for spec in specs
        if spec.remedy is not None and counts[spec.name] != spec.partitions
    ]
    if wrong:
        raise FatalError("; ".join(wrong))


def topic_texts(kafka: Kafka, specs: Sequence[TopicSpec]) -> dict[str, str]:
    """Return topic → its partitions and policy as Kafka has them, and where they differ from the configuration.

    Topics that do not exist are left out.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses the request.
    """
    counts = {name: len(topic.partitions) for name, topic in metadata(kafka).topics.items()}
    found = [spec for spec in specs if spec.name in counts]
    settings = topic_settings(kafka, [spec.name for spec in found])
    return {spec.name: _topic_text(spec, counts[spec.name], settings[spec.name]) for spec in found}


def _topic_text(spec: TopicSpec, partitions: int, settings: Mapping[str, str]) -> str:
    others = [f"{spec.partitions} partitions"] if partitions != spec.partitions else []
    has = []
    for name, wanted in spec.config.items():
        if sorted(settings[name].split(",")) != sorted(wanted.split(",")):  # policies have no order
            others.append(f"{name}={wanted}")
            if name != "cleanup.policy":
                has.append(f"{name}={settings[name]}")
    text = f"{spec.name} ({', '.join([f'{partitions} partitions', settings['cleanup.policy'], *has])})"
    return text + (f"; the configuration says {', '.join(others)}" if others else "")


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


def check_items(kafka: Kafka, topic: str) -> None:
    """Check that the topic of items keeps every item: rows whose item has no message are deleted.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: a setting is wrong, or Kafka refuses the request; the message names the remedy.
    """
    policy = topic_settings(kafka, [topic])[topic]["cleanup.policy"]
    if policy != "compact":
        raise FatalError(
            f"topic {topic} has cleanup.policy={policy}, with which Kafka deletes items that are in use; fix it with: "
            f"kafka-configs --bootstrap-server {kafka.bootstrap_servers} --alter --entity-type topics --entity-name "
            f"{topic} --add-config cleanup.policy=compact, and publish the items again (python -m producers.items "
            "--artifact DIR)"
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


class TopicIdentities:
    """Asks Kafka what the names of topics stand for, through one client that is kept. For one thread.

    Args:
        kafka: the cluster.
        topics: names of topics.
    """

    def __init__(self, kafka: Kafka, topics: Collection[str]) -> None:
        self._topics = tuple(topics)
        self._client = admin_client(kafka)

    def now(self) -> dict[str, TopicIdentity]:
        """Return topic → its identity.

        Raises:
            TransientError: Kafka is unavailable, or has no such topic; a broker that has just started may not know it.
            FatalError: Kafka refuses the request.
        """
        answers = self._client.describe_topics(TopicCollection(list(self._topics)), request_timeout=ADMIN_TIMEOUT_S)
        found = {}
        for topic, answer in answers.items():
            try:
                described = answer.result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise TransientError("Kafka", f"there is no topic {topic} now, or no right to it") from None
                raise translate_error(error.args[0], topic) from None
            found[topic] = TopicIdentity(str(described.topic_id), len(described.partitions))
        return found


def _await_topics(kafka: Kafka, names: Sequence[str]) -> None:
    """Wait until the leader of every partition of the created topics is ready, which takes a moment."""
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while True:
        try:
            found = metadata(kafka).topics
            if not set(names) <= set(found):
                raise TransientError("Kafka", "the topics were created, but the metadata does not show them yet")
            for name in names:
                offsets = TopicOffsets(kafka, name)
                try:
                    offsets.end_offsets(found[name].partitions)
                finally:
                    offsets.renew()  # closes its consumer
        except TransientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
