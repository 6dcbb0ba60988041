"""The topics' settings: those that they are created with, and those that a worker requires."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

import streams.kafka.topics
from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from streams.kafka.topics import (
    TopicIdentities,
    TopicIdentity,
    changelog_topic,
    check_changelog,
    check_topics,
    topic_specs,
    topic_texts,
)

CONFIG = load_worker(None, (), {})
TOPIC = changelog_topic(CONFIG.worker.group)
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
SPECS = {spec.name: spec for spec in topic_specs(CONFIG.topics, CONFIG.worker.group)}


def test_timestamps_are_the_brokers() -> None:
    assert {spec.config["message.timestamp.type"] for spec in SPECS.values()} == {"LogAppendTime"}


def _check(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    found = SPECS[TOPIC].config | {name.replace("_", "."): value for name, value in changes.items()}
    monkeypatch.setattr(streams.kafka.topics, "topic_settings", lambda *_: {TOPIC: found})
    check_changelog(CONFIG.kafka, TOPIC)


def test_a_changelog_as_created_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    _check(monkeypatch)
    _check(monkeypatch, min_compaction_lag_ms="86400000")


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("cleanup_policy", "delete", "cleanup.policy=compact"),
        ("cleanup_policy", "compact,delete", "cleanup.policy=compact"),
        ("min_compaction_lag_ms", "0", "min.compaction.lag.ms=600000"),
        ("message_timestamp_type", "CreateTime", "message.timestamp.type=LogAppendTime"),
    ],
)
def test_a_changelog_that_loses_histories_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    with pytest.raises(FatalError, match=f"--entity-name {TOPIC} --add-config {remedy}$"):
        _check(monkeypatch, **{name: value})


def _exist(monkeypatch: pytest.MonkeyPatch, **partitions: int) -> None:
    """Let the topics exist as configured, except for these numbers of partitions, by key of `topics`."""
    counts = {name: spec.partitions for name, spec in SPECS.items()}
    for key, count in partitions.items():
        counts[TOPIC if key == "changelog" else getattr(CONFIG.topics, key)] = count
    topics = {name: SimpleNamespace(partitions=range(count)) for name, count in counts.items()}
    monkeypatch.setattr(streams.kafka.topics, "metadata", lambda _: SimpleNamespace(topics=topics))


def test_each_topic_with_another_number_of_partitions_has_a_remedy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = list(SPECS.values())
    _exist(monkeypatch)
    check_topics(CONFIG.kafka, specs)
    _exist(monkeypatch, recommendations=3, dead_letters=1)  # keys decide, and no reader needs a number
    check_topics(CONFIG.kafka, specs)
    for key, remedy in (
        ("clicks", r"topic clicks has 9 .*set topics\.partitions .*another worker\.group"),
        ("items", r"topic items has 9 .*set topics\.item_partitions .*producers\.items"),
        ("changelog", rf"topic {TOPIC} has 9 .*another worker\.group"),
    ):
        _exist(monkeypatch, **{key: 9})
        with pytest.raises(FatalError, match=remedy):
            check_topics(CONFIG.kafka, specs)
    _exist(monkeypatch, clicks=9, items=9, changelog=9)
    with pytest.raises(FatalError, match=rf"topic clicks has.*topic items has.*topic {TOPIC} has"):
        check_topics(CONFIG.kafka, specs)


def test_topics_are_described_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    _exist(monkeypatch, clicks=9)
    settings = {name: dict(spec.config) for name, spec in SPECS.items()}
    settings["clicks"]["retention.ms"] = "1000"
    settings["items"]["cleanup.policy"] = "delete"
    settings["recommendations"]["cleanup.policy"] = "delete,compact"
    monkeypatch.setattr(streams.kafka.topics, "topic_settings", lambda _, names: {n: settings[n] for n in names})
    texts = topic_texts(CONFIG.kafka, list(SPECS.values()))
    assert texts["clicks"] == (
        "clicks (9 partitions, delete, retention.ms=1000); the configuration says 8 partitions, retention.ms=604800000"
    )
    assert texts["items"] == "items (4 partitions, delete); the configuration says cleanup.policy=compact"
    assert texts["recommendations"] == "recommendations (8 partitions, delete,compact)", "policies have no order"


def test_a_topic_of_recommendations_of_an_earlier_version_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    _exist(monkeypatch)
    brokers = {"delete.retention.ms": "86400000", "min.compaction.lag.ms": "0", "segment.ms": "604800000"}
    earlier = {**brokers, "cleanup.policy": "delete", "retention.ms": "604800000"} | _BROKER_TIME
    monkeypatch.setattr(streams.kafka.topics, "topic_settings", lambda _, names: dict.fromkeys(names, earlier))
    specs = [SPECS["recommendations"]]
    check_topics(CONFIG.kafka, specs)
    assert topic_texts(CONFIG.kafka, specs)["recommendations"] == (
        "recommendations (8 partitions, delete, retention.ms=604800000, min.compaction.lag.ms=0, segment.ms=604800000, "
        "delete.retention.ms=86400000); the configuration says cleanup.policy=compact,delete, retention.ms=2592000000, "
        "min.compaction.lag.ms=86400000, segment.ms=86400000, delete.retention.ms=604800000"
    )


class _Admin:
    """An admin client that describes topics, or fails."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code

    def describe_topics(self, _: Any, request_timeout: float) -> dict[str, Any]:
        return {"clicks": self}

    def result(self) -> Any:
        if self.code is not None:
            raise KafkaException(KafkaError(self.code))
        return SimpleNamespace(topic_id="c1", partitions=[0, 1])


def test_what_a_topic_name_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = _Admin()
    monkeypatch.setattr(streams.kafka.topics, "admin_client", lambda _: admin)
    identities = TopicIdentities(CONFIG.kafka, ["clicks"])
    assert identities.now() == {"clicks": TopicIdentity("c1", 2)}
    for code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._TIMED_OUT):
        admin.code = code
        with pytest.raises(TransientError):
            identities.now()
    admin.code = KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(FatalError, match="clicks"):
        identities.now()
