"""Topics that change behind their names: recreated, replaced, extended, or emptied before they were read."""

from __future__ import annotations

import re

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from embedded.program import WorkerProgram, http_get
from streams.kafka.offsets import TopicOffsets
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import changelog_topic
from streams.tools.audit import audit_kafka
from streams.worker.preconditions import CommitMetadata
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

CLICKS_ONLY = ("--agents", "clicks", "--set", "worker.session_timeout=6")


def _removed(worker: WorkerProgram) -> float:
    """Return how many clicks the worker says Kafka removed before they were read."""
    _, metrics = http_get(worker.metrics_port, "/metrics")
    found = re.search(rb"^mindstream_clicks_removed_unread_total (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return float(found[1])


def _offsets(site: Site) -> TopicOffsets:
    return TopicOffsets(site.config.kafka, site.config.topics.clicks, f"{site.config.worker.group}-clicks")


def _refused(site: Site, name: str, *options: str) -> str:
    """Start a worker that ends with status 78; return its log."""
    worker = site.start_worker(*CLICKS_ONLY, *options, name=name)
    assert worker.wait(60) == 78, site.log(name).read_text()
    return site.log(name).read_text()


def test_clicks_that_kafka_removed_are_reported_and_added_partitions_refused(site: Site) -> None:
    site.fill_index()
    clicks, partitions = site.config.topics.clicks, range(4)
    changelog = changelog_topic(site.config.worker.group)
    with site.worker(*CLICKS_ONLY, name="first"):
        site.producer.send([site.click(u, 1 + u) for u in range(40)])
        wait_for(lambda: audit_kafka(site.config).ok, "the clicks")
        wait_for(lambda: sum(n or 0 for n in _offsets(site).committed(partitions).values()) == 40, "the commits")
    positions = {p: position for p, position in _offsets(site).positions(partitions).items() if position}
    for partition, position in positions.items():
        metadata = CommitMetadata.from_text(position.metadata)
        assert metadata is not None and metadata.partitions == 4, positions
        ends = TopicOffsets(site.config.kafka, changelog).end_offsets([partition])
        assert ends == {partition: metadata.reached}

    site.producer.send([site.click(u, 2 + u) for u in range(40)])
    ends = _offsets(site).end_offsets(partitions)
    admin = AdminClient(site.config.kafka.client_settings())
    removed = admin.delete_records([TopicPartition(clicks, p, end) for p, end in ends.items()])
    assert all(future.result() for future in removed.values())
    with site.worker(*CLICKS_ONLY, name="second") as worker:
        wait_for(lambda: _removed(worker) == 40, "the count of removed clicks, without another click")
        site.producer.send([site.click(u, 3 + u) for u in range(40)])
        wait_for(lambda: len(site.recommendations()) == 80, "the clicks after them")
        assert _removed(worker) == 40, "they are counted once"
    assert "Kafka removed offsets" in site.log("second").read_text()

    third = site.start_worker(*CLICKS_ONLY, name="third")
    third.await_restored()
    admin.create_partitions([NewPartitions(clicks, 6)])[clicks].result()
    assert third.wait(40) == 78
    log = site.log("third").read_text()
    assert "it has 6 now, and had 4. Stop all click workers and set topics.partitions" in log
    created = site.run("streams", "topics", "create")
    assert created.returncode == 78
    assert f"{clicks} (6 partitions, delete); the configuration says 4 partitions" in created.stdout
    assert f"topic {clicks} has 6 partitions" in created.stderr
    six = ["--set", "topics.partitions=6"]
    refused = site.run("streams", "topics", "create", *six)
    assert refused.returncode == 78
    assert f"topic {changelog} has 4 partitions" in refused.stderr
    assert f"topic {clicks} " not in refused.stderr, "and recommendations need not have as many"

    new_group = [*six, "--set", f"worker.group={site.name}-2"]
    created = site.run("streams", "topics", "create", *new_group)
    assert created.returncode == 0, created.stderr
    with site.worker(*CLICKS_ONLY, *new_group, name="fourth"):
        # The site's producer does not know the new partitions yet.
        producer = KafkaRecordProducer(site.config.kafka, 2**20, site.config.topics.partitioner)
        producer.send([site.click("moved", 5)])
        wait_for(lambda: any(r.user_id == "moved" for r in site.recommendations()), "a click after the remedy")
    # With partitions added to the changelog, too, numbers agree, but histories are in the wrong partitions.
    admin.create_partitions([NewPartitions(changelog, 6)])[changelog].result()
    assert "6 partitions, but histories were made when it had 4" in _refused(site, "fifth", *six)


def test_another_topic_under_the_same_group_is_refused(site: Site) -> None:
    site.fill_index()
    clicks, other = site.config.topics.clicks, f"{site.config.topics.clicks}-b"
    with site.worker(*CLICKS_ONLY, name="first"):
        site.producer.send([site.click(u, 1 + u) for u in range(40)])
        wait_for(lambda: audit_kafka(site.config).ok, "the clicks")
        wait_for(lambda: sum(n or 0 for n in _offsets(site).committed(range(4)).values()) == 40, "the commits")
    on_other = ["--set", f"topics.clicks={other}"]
    assert site.run("streams", "topics", "create", *on_other).returncode == 0
    assert f"has read {clicks}, but topics.clicks is {other}" in _refused(site, "second", *on_other)

    worker = site.start_worker(*CLICKS_ONLY, name="third")
    worker.await_restored()
    admin = AdminClient(site.config.kafka.client_settings())
    admin.delete_topics([clicks])[clicks].result()
    wait_for(lambda: clicks not in admin.list_topics(timeout=10).topics, "the deletion of the topic")
    site.create_topics()
    assert worker.wait(60) == 78, site.log("third").read_text()
    assert "was deleted and created again while this worker ran" in site.log("third").read_text()

    # Longer than the fences; Kafka has deleted the commits together with the topic.
    site.producer.send([site.click(u, 1 + u) for u in range(100, 300)])
    log = _refused(site, "fourth", "--set", f"worker.data_dir={site.folder / 'a lost disk'}")
    assert re.search(r"is not the click that a history counts there.*another worker\.group", log)
