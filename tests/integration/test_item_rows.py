"""Rows of Milvus and the topic of items: new collections are filled, rows that differ are repaired. Real servers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from benchmarks.harness.data import random_artifact
from configs.errors import EXIT_TRANSIENT
from embedded.program import WorkerProgram, http_get
from streams.kafka.topics import TopicIdentities
from streams.milvus.index import MilvusIndex
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

ITEMS = ("--agents", "items")


def _publish(site: Site, vectors: Mapping[int, np.ndarray | None], version: str | None = None) -> None:
    site.producer.send([site.item(item_id, vector, version) for item_id, vector in vectors.items()])


def _ended(worker: WorkerProgram) -> int:
    wait_for(lambda: worker._process.poll() is not None, "the end of the worker")
    return int(worker._process.returncode)


def test_a_new_collection_is_filled_without_publishing_again(site: Site, tmp_path: Path) -> None:
    """It was dropped under a running worker, or belongs to another model under the same worker.group."""
    count = len(site.artifact.item_ids)
    _publish(site, dict(zip(site.artifact.item_ids.tolist(), site.artifact.item_vectors, strict=True)))
    with site.worker(*ITEMS) as worker:
        first = site.index()
        wait_for(lambda: first.describe().count == count, "the items")
        first.drop()
        assert _ended(worker) == EXIT_TRANSIENT, "its supervisor starts it again"
    assert "was dropped" in site.log("worker").read_text()
    with site.worker(*ITEMS):
        second = site.index()
        wait_for(lambda: second.describe().count == count, "the items of the new collection")
        assert second.identity != first.identity

        other = random_artifact(tmp_path / "other", 50, dim=16, seed=9)
        _publish(site, dict(zip(other.item_ids.tolist(), other.item_vectors, strict=True)), other.model_version)
        with site.worker(*ITEMS, "--set", f"model.artifact={other.path}", name="other model"):
            index = MilvusIndex(site.config.milvus, other.model_version, other.dim, create=False)
            wait_for(lambda: index.describe().count == 50, "the items of the other model")
            index.drop()
            index.close()
        assert second.describe().count == count
    first.close()
    second.close()


def test_rows_that_differ_from_the_topic_are_repaired(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    """While no worker runs, Kafka forgets a removal, and rows are written and deleted behind the worker's back."""
    site = Site(tmp_path, kafka, milvus_lite, items=10)
    # Compaction as soon as possible, and no time for which removals are kept.
    hurry = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.0", "delete.retention.ms": "0"}
    site.create_topics(hurry)
    vectors = np.eye(16, dtype=np.float32)
    with site.worker(*ITEMS):
        index = site.index()
        _publish(site, dict.fromkeys(range(1, 9), vectors[0]))
        _publish(site, dict.fromkeys(range(1, 9), vectors[1]))
        wait_for(lambda: index.describe().count == 8, "the items")
        items = np.arange(1, 9)
        wait_for(lambda: all((v == vectors[1]).all() for v in index.get(items).values()), "the newer vectors")
    rows = index.sources(items)
    topic = site.config.topics.items
    newest = {int(m.key or b""): (m.partition, m.offset) for m in site.messages(topic)}
    assert rows == newest, "each row names its message"

    _publish(site, {3: None})

    def forgotten() -> bool:
        # A segment is compacted only when another one has begun.
        site.producer.send([site.item(99, vectors[5])._replace(partition=p) for p in range(2)])
        return not any(m.key == b"3" for m in site.messages(topic))

    wait_for(forgotten, "the compaction")
    older = np.array([(rows[1][0], rows[1][1] - 1)])
    index.upsert(np.array([1]), vectors[:1], older)  # as a zombie does
    index.delete(np.array([2]))
    index.upsert(np.array([50]), vectors[:1])  # written by another program
    assert set(index.sources(np.array([1, 2, 3, 50]))) == {1, 3, 50}

    with site.worker(*ITEMS) as worker:
        repaired = {1: rows[1], 2: rows[2], 50: (-1, -1)}
        wait_for(lambda: index.sources(np.array([1, 2, 3, 50])) == repaired, "the repair")
        wait_for(lambda: (index.get(np.array([1]))[1] == vectors[1]).all(), "the newest vector")
        _, metrics = http_get(worker.metrics_port, "/metrics")
        found = re.findall(r'item_rows_repaired_total\{kind="(\w+)"\} 1\.0', metrics.decode())
        assert sorted(found) == ["added", "deleted", "rewritten"]
    index.drop()
    index.close()


def test_added_partitions_are_noticed(site: Site) -> None:
    topic = site.config.topics.items
    identities = TopicIdentities(site.config.kafka, [topic])
    assert identities.now()[topic].partitions == 2
    admin = AdminClient(site.config.kafka.client_settings())
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    wait_for(lambda: identities.now()[topic].partitions == 3, "the partition")
    done = site.run("streams", "worker", *ITEMS)
    assert done.returncode == 78
    assert "topics.item_partitions" in done.stderr
