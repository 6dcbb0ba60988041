"""The topics' settings: those that they are created with, and those that a worker requires."""

from __future__ import annotations

import pytest

import streams.kafka.topics
from configs.errors import FatalError
from configs.loader import load_worker
from streams.kafka.topics import changelog_topic, check_changelog, topic_specs

CONFIG = load_worker(None, (), {})
TOPIC = changelog_topic(CONFIG.worker.group)
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
