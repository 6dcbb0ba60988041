"""The compaction of topics that are copied."""

from __future__ import annotations

import pytest

import streams.kafka.compaction
from configs.loader import load_worker
from streams.kafka.compaction import Compaction, read_compaction
from streams.kafka.topics import topic_specs

CONFIG = load_worker(None, ["kafka.bootstrap_servers=broker:9092"], {})
(SPEC,) = [s for s in topic_specs(CONFIG.topics, "g") if s.name == "recommendations"]


def _read(monkeypatch: pytest.MonkeyPatch, **changes: str) -> Compaction:
    found = SPEC.config | {name.replace("_", "."): value for name, value in changes.items()}
    monkeypatch.setattr(streams.kafka.compaction, "topic_settings", lambda *_: {SPEC.name: found})
    return read_compaction(CONFIG.kafka, SPEC)


@pytest.mark.parametrize("policy", ["compact,delete", "delete,compact", "compact"])
def test_a_compacted_topic_needs_no_remedy(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    assert _read(monkeypatch, cleanup_policy=policy) == Compaction(7 * 86_400.0, None)


def test_the_remedy_changes_exactly_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _read(monkeypatch, cleanup_policy="delete", retention_ms="1000", delete_retention_ms="86400000")
    assert found.removals_kept_s == 86_400.0
    assert found.warning is not None
    assert found.warning.startswith("topic recommendations is not compacted (cleanup.policy=delete)")
    assert found.warning.endswith(
        "kafka-configs --bootstrap-server broker:9092 --alter --entity-type topics --entity-name recommendations "
        "--add-config 'cleanup.policy=[compact,delete],retention.ms=2592000000,delete.retention.ms=604800000'"
    )
