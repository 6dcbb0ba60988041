"""Settings of compacted topics that readers of a copy rely on."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import Kafka
from streams.kafka.topics import TopicSpec, topic_settings


@dataclass(frozen=True, slots=True)
class Compaction:
    """Compaction of a topic.

    Attributes:
        removals_kept_s: seconds for which Kafka keeps the message that removes a key, at least.
        warning: the consequence and the remedy, if the topic is not compacted; None if it is.
    """

    removals_kept_s: float
    warning: str | None


def read_compaction(kafka: Kafka, spec: TopicSpec) -> Compaction:
    """Return the compaction of a topic as Kafka has it.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: there is no such topic, or Kafka refuses the request.
    """
    found = topic_settings(kafka, [spec.name])[spec.name]
    removals_kept_s = int(found["delete.retention.ms"]) / 1000
    if "compact" in found["cleanup.policy"].split(","):
        return Compaction(removals_kept_s, None)
    wanted = {**spec.config, "cleanup.policy": f"[{spec.config['cleanup.policy']}]"}  # its value has a comma
    change = ",".join(f"{name}={value}" for name, value in wanted.items() if found[name] != value)
    return Compaction(
        removals_kept_s,
        f"topic {spec.name} is not compacted (cleanup.policy={found['cleanup.policy']}): it has no newest message of "
        "users who have not clicked for its retention, and a new copy has to read all of it. Change it with: "
        f"kafka-configs --bootstrap-server {kafka.bootstrap_servers} --alter --entity-type topics --entity-name "
        f"{spec.name} --add-config '{change}'",
    )
