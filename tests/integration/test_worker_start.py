"""Starts that are refused with a remedy, and the creation of topics."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from streams.kafka.topics import topic_specs
from streams.state.store import PartitionStores
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration


def _refused(site: Site, *extra: str) -> str:
    done = site.run("streams", "worker", *extra)
    assert done.returncode == 78, done.stderr
    return done.stderr


def test_the_start_is_refused_with_a_remedy(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    site = Site(tmp_path, kafka, milvus_lite, items=20)
    assert "python -m streams topics create" in _refused(site)
    site.create_topics()
    assert "--agents items" in _refused(site, "--agents", "clicks")
    assert "set topics.partitions" in _refused(site, "--set", "topics.partitions=5")
    assert "python -m model.train" in _refused(site, "--set", f"model.artifact={tmp_path / 'nowhere'}")
    assert "history.length" in _refused(site, "--set", "history.length=3")
    assert "recall.interests" in _refused(site, "--set", "recall.interests=9")
    assert "did you mean 'recall.top_k'" in _refused(site, "--set", "recall.topk=9")
    site.fill_index()
    stores = PartitionStores(tmp_path / "other" / "history")
    stores.bind("M5v2LkzXQ7Oj+pPAzW3kRg")
    assert "another changelog topic" in _refused(site, "--set", f"worker.data_dir={tmp_path / 'other'}")
    (tmp_path / "file").write_text("")
    assert "worker.data_dir" in _refused(site, "--set", f"worker.data_dir={tmp_path / 'file'}")
    assert (
        "python -m embedded status"
        in site.run("streams", "worker", "--set", "kafka.bootstrap_servers=127.0.0.1:9").stderr
    )


def test_topics_are_created_as_configured_and_only_once(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    site = Site(tmp_path, kafka, milvus_lite, items=20)
    first, second = (site.run("streams", "topics", "create") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.count("created") == 5
    assert second.stdout.count("exists") == 5
    admin = AdminClient(site.config.kafka.client_settings())
    for spec in topic_specs(site.config.topics, site.config.worker.group):
        resource = ConfigResource(ConfigResource.Type.TOPIC, spec.name)
        found = admin.describe_configs([resource])[resource].result()
        for name, value in spec.config.items():
            assert found[name].value == value, (spec.name, name)
    assert site.run("streams", "topics", "check").returncode == 0


def test_clicks_of_a_recreated_topic_are_not_taken_for_repeats(site: Site) -> None:
    site.fill_index()
    with site.worker(name="first"):
        site.producer.send([site.click(1, item) for item in (5, 6, 7)])
        wait_for(lambda: audit_kafka(site.config).ok, "the clicks")
    clicks = site.config.topics.clicks
    admin = AdminClient(site.config.kafka.client_settings())
    admin.delete_topics([clicks])[clicks].result()
    wait_for(lambda: clicks not in admin.list_topics(timeout=10).topics, "the deletion of the topic")
    site.create_topics()
    site.producer.send([site.click(1, 8)])
    assert "another worker.group" in _refused(site, "--set", f"worker.data_dir={site.folder / 'a lost disk'}")
