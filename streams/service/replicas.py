"""Build the local copies of Kafka's topics from which the service reads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from configs.schema import Kafka, ServiceConfig
from streams.errors import RestartRequired
from streams.history import Fence
from streams.kafka.acls import check_rights, service_rights, used_topics
from streams.kafka.compaction import read_compaction
from streams.kafka.topics import TopicIdentities, TopicSpec, changelog_topic, check_topics, topic_specs
from streams.metrics import ReplicaMetrics
from streams.service.histories import HistoryReplica, pack_history, stored_history_fence
from streams.service.newest import RecommendationReplica, pack_recommendation, stored_recommendation_fence
from streams.state.changelog import CompactedTopic
from streams.state.follower import Follower
from streams.state.shared_store import SharedStores

_LOG = logging.getLogger("mindstream.service")

_DAY_S = 86_400.0
_Pack = Callable[[bytes | None, bytes, float], bytes]
_FenceOf = Callable[[bytes, int], Fence | None]


@dataclass(frozen=True, slots=True)
class Replicas:
    """The copies of a service."""

    histories: HistoryReplica
    recommendations: RecommendationReplica

    def close(self) -> None:
        """Stop following, and close the copies."""
        self.histories.close()
        self.recommendations.close()


def open_replicas(
    config: ServiceConfig, on_changed: Callable[[RestartRequired], object], metrics: ReplicaMetrics
) -> Replicas:
    """Check the service's rights and topics, then open its copies and begin to follow the topics.

    Args:
        config: names the cluster, the topics, the group of the workers, and the folder of the copies.
        on_changed: called from another thread when this process must end, because a name stands for another topic now.
        metrics: of the copies.

    Raises:
        FatalError: rights or topics are missing, or a folder is a copy of another topic; the message names the remedy.
        TransientError: Kafka is unavailable.
        RestartRequired: the disk is full, or another process uses the folder.
    """
    kafka, topics, group = config.kafka, config.topics, config.worker.group
    needed = service_rights(topics, group)
    check_rights(kafka, needed)
    used = used_topics(topic_specs(topics, group), needed)
    check_topics(kafka, used)
    specs = {spec.name: spec for spec in used}

    def follow(replica: str, topic: str, pack: _Pack, fence_of: _FenceOf) -> Follower:
        stores = SharedStores(config.service.data_dir / topic, fence_of, "service.data_dir")
        identities = TopicIdentities(kafka, [topic])
        foreign = metrics.foreign.labels(replica).inc
        kept_s = _removals_kept_s(kafka, specs[topic])
        follower = Follower(CompactedTopic(kafka, topic), stores, identities, pack, on_changed, kept_s, foreign)
        metrics.observe(replica, follower.lag)
        return follower

    histories = follow("histories", changelog_topic(group), pack_history, stored_history_fence)
    newest = follow("recommendations", topics.recommendations, pack_recommendation, stored_recommendation_fence)
    return Replicas(
        HistoryReplica(histories, topics.partitioner),
        RecommendationReplica(newest, topics.recommendation_retention_days * _DAY_S),
    )


def _removals_kept_s(kafka: Kafka, spec: TopicSpec) -> float:
    compaction = read_compaction(kafka, spec)
    if compaction.warning is not None:
        _LOG.warning("%s", compaction.warning)
    return compaction.removals_kept_s
