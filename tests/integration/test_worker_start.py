"""Starts that are refused with a remedy, and the creation of topics."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from benchmarks.harness.data import random_artifact
from embedded.deployment import PRODUCER_SECTIONS
from embedded.program import WorkerProgram, http_get
from model.artifact import Artifact
from streams.kafka.topics import topic_specs
from streams.state.store import PartitionStores
from streams.tools.audit import audit_kafka
from tests.site import WAIT_TIMEOUT_S, Site, wait_for

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
    assert "copy of another topic" in _refused(site, "--set", f"worker.data_dir={tmp_path / 'other'}")
    (tmp_path / "file").write_text("")
    assert "worker.data_dir" in _refused(site, "--set", f"worker.data_dir={tmp_path / 'file'}")
    assert (
        "python -m embedded status"
        in site.run("streams", "worker", "--set", "kafka.bootstrap_servers=127.0.0.1:9").stderr
    )


def _state(worker: WorkerProgram) -> tuple[int, Any]:
    """Return status and body of /readyz; 0 = it does not answer yet."""
    try:
        status, body = http_get(worker.metrics_port, "/readyz")
    except OSError:
        return 0, {"missing": []}
    return status, json.loads(body)


def _publish(site: Site, artifact: Artifact) -> None:
    done = site.run("producers.items", "--artifact", str(artifact.path), sections=PRODUCER_SECTIONS)
    assert done.returncode == 0, done.stderr


def test_a_worker_with_both_agents_on_an_empty_milvus_is_ready_when_the_items_are_published(site: Site) -> None:
    site.drop_index()
    worker = site.start_worker()
    try:
        missing = [
            "catalogue: the collection holds 0 of 300 items; publish them: python -m producers.items --artifact "
            f"{site.artifact.path}; if they were published, see python -m streams deadletters list; "
            "if so many are enough, lower recall.catalogue_share",
            "clicks: it has not started yet",
        ]
        wait_for(lambda: _state(worker)[1]["missing"] == missing, "nothing but the items to be missing")
        assert _state(worker)[0] == 503
        assert http_get(worker.metrics_port, "/healthz")[0] == 200
        site.producer.send([site.click(1, 5)])
        _publish(site, site.artifact)
        worker.await_ready()
        wait_for(lambda: len(site.recommendations()) == 1, "a recommendation")
        assert len(site.recommendations()[0].item_ids) == site.config.recall.top_k
    finally:
        assert worker.stop()


def test_workers_of_a_new_model_take_no_partition_before_its_items_are_there(site: Site, tmp_path: Path) -> None:
    site.fill_index()
    new = random_artifact(tmp_path / "new", 200, dim=16, seed=1)
    settings = ("--set", f"model.artifact={new.path}")
    with site.worker("--agents", "clicks", name="old"):
        filling = site.start_worker(*settings, name="filling")
        wait_for(lambda: "the collection holds 0 of 200" in str(_state(filling)[1]["missing"]), "the new collection")
        waiting = site.start_worker("--agents", "clicks", *settings, name="waiting")
        wait_for(lambda: "the collection holds 0 of 200" in str(_state(waiting)[1]["missing"]), "the wait")
        site.producer.send([site.click(user, 5) for user in range(20)])
        wait_for(lambda: len(site.recommendations()) == 20, "the old model's worker to answer all")
        assert {r.model_version for r in site.recommendations()} == {site.artifact.model_version}
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(timeout=30) == 0
        _publish(site, new)
        filling.await_ready()
        assert _state(filling)[1]["agents"]["clicks"]["partitions"], "its share of the partitions"
        site.producer.send([site.click(user, 6) for user in range(20)])
        wait_for(lambda: audit_kafka(site.config).ok, "the answers of both models")
        assert {r.model_version for r in site.recommendations()} == {site.artifact.model_version, new.model_version}
        assert filling.stop()


@pytest.mark.parametrize(
    ("key", "address", "number"),
    [
        (None, "", signal.SIGINT),
        ("kafka.bootstrap_servers", "127.0.0.1:{}", signal.SIGTERM),
        ("milvus.uri", "http://127.0.0.1:{}", signal.SIGINT),
    ],
    ids=["imports", "kafka", "milvus"],
)
def test_a_signal_ends_the_start_within_5_seconds(site: Site, key: str | None, address: str, number: int) -> None:
    """While a server that accepts connections, and never answers, is waited for; and before anything is."""
    with ExitStack() as sockets:
        silent = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        silent.settimeout(WAIT_TIMEOUT_S)
        worker = site.start_worker(*(("--set", f"{key}={address.format(silent.getsockname()[1])}") if key else ()))
        try:
            if key is None:
                wait_for(lambda: "pydantic_core" in Path(f"/proc/{worker.pid}/maps").read_text(), "the first imports")
            else:
                sockets.enter_context(silent.accept()[0])
            started = time.monotonic()
            worker.send_signal(number)
            assert worker.wait(timeout=30) == 0, site.log("worker").read_text()
            assert time.monotonic() - started < 5.0
        finally:
            worker.kill()


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
