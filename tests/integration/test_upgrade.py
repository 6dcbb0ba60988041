"""Histories of an older version are continued.

`histories_of_7878f5a.json` holds what workers of that commit left on a real broker and on disk: four partitions, 14
users. It was made once, with that commit's own code:

1. A worker answered three clicks of each user, and was stopped by SIGTERM. `store` is its folder of histories then, as
   base64 of a tar file, without RocksDB's logs; `committed` are the group's offsets, whose metadata is empty.
2. Another worker, whose `worker.commit_interval` was an hour, answered two more clicks of eleven users and was killed:
   their records are in the changelog, but neither in that store nor committed.
3. The first record of three users was sent again, as a zombie does, and six users clicked once more.

`clicks`, `changelog` and `recommendations` are the topics: partition, offset, key, value (base64 in `changelog`).
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from streams.history import History
from streams.kafka.topics import TopicIdentities, changelog_topic
from streams.ports import Output
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

LEFT: dict[str, Any] = json.loads(Path(__file__).with_name("histories_of_7878f5a.json").read_text(encoding="utf-8"))
#: User → number of clicks in all.
CLICKS = {key: sum(found == key for _, _, found, _ in LEFT["clicks"]) for _, _, key, _ in LEFT["clicks"]}


def _install(site: Site) -> None:
    """Write topics, committed offsets and the local store as they were left."""
    topics, group = site.config.topics, site.config.worker.group
    changelog = changelog_topic(group)
    for topic, messages, decode in (
        (topics.clicks, LEFT["clicks"], str.encode),
        (changelog, LEFT["changelog"], base64.b64decode),
        (topics.recommendations, LEFT["recommendations"], str.encode),
    ):
        offsets = site.producer.send([Output(topic, key.encode(), decode(value), p) for p, _, key, value in messages])
        assert list(offsets) == [offset for _, offset, _, _ in messages]
    consumer = Consumer(site.config.kafka.client_settings(**{"group.id": f"{group}-clicks"}))
    consumer.commit(
        offsets=[TopicPartition(topics.clicks, int(p), offset) for p, offset in LEFT["committed"].items()],
        asynchronous=False,
    )
    consumer.close()
    history = site.data_dir("worker") / "history"
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(LEFT["store"]))) as tar:
        tar.extractall(history, filter="data")
    file = history / "changelog-topic-id"
    assert len(file.read_text()) == 22
    # The topic has another id on this broker.
    file.write_text(TopicIdentities(site.config.kafka, [changelog]).now()[changelog].id)


def _newest(site: Site) -> dict[str, History]:
    messages: Iterable[Any] = site.messages(changelog_topic(site.config.worker.group))
    return {m.key.decode(): History.from_bytes(m.value) for m in messages}


def test_histories_of_the_version_before_are_continued(site: Site) -> None:
    site.fill_index()
    _install(site)
    records = {(key.encode(), base64.b64decode(value)) for _, _, key, value in LEFT["changelog"]}
    with site.worker("--agents", "clicks"):
        wait_for(lambda: audit_kafka(site.config).ok, "all clicks that were left")
        log = site.log("worker").read_text()
        assert "acquired partitions 0, 1, 2, 3: restored 14 records" in log, "those that the store did not have"
        assert "wrote 3 records again" in log, "the zombie's"
        changelog = site.messages(changelog_topic(site.config.worker.group))
        # Users of whom only repeats are read again get their record again, unchanged, as often as a batch has them.
        assert len({(m.key, m.value) for m in changelog} - records) == 6, "fences stop the others"
        report = audit_kafka(site.config)
        assert (report.clicks, report.users, report.dead_letters) == (70, 14, 0)
        assert (report.histories_equal, report.histories_overwritten) == (14, 0)
        assert {key: len(history.items) for key, history in _newest(site).items()} == CLICKS
        site.producer.send([site.click("käthe", 9), site.click(1, 9)])
        wait_for(lambda: audit_kafka(site.config).clicks == 72 and audit_kafka(site.config).ok, "new clicks")
        assert len(_newest(site)["käthe"].items) == CLICKS["käthe"] + 1
    assert "damaged" not in site.log("worker").read_text()
