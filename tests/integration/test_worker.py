"""The worker process on real Kafka and Milvus: its agents, its exit, and the histories that the next one restores."""

from __future__ import annotations

import signal
import time

import numpy as np
import orjson
import pytest

from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration


def test_sigterm_finishes_the_batch_and_exits_within_5_seconds(site: Site) -> None:
    site.fill_index()
    with site.worker() as worker:
        site.producer.send([site.click(u, 1 + u % 300) for u in range(400)])
        wait_for(lambda: len(site.recommendations()) > 20, "some recommendations")
        started = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
        assert time.monotonic() - started < 5
    with site.worker(name="next"):
        wait_for(lambda: audit_kafka(site.config).ok, "the next worker to finish")
    assert audit_kafka(site.config).users == 400


def test_agents_run_in_separate_processes(site: Site) -> None:
    with site.worker("--agents", "items", name="items"):
        vectors = np.asarray(site.artifact.item_vectors)
        site.producer.send([site.item(i + 1, vectors[i]) for i in range(len(vectors))])
        index = site.index()
        wait_for(lambda: index.describe().count == len(vectors), "the items")
        with site.worker("--agents", "clicks", name="clicks"):
            site.producer.send([site.click(1, 5)])
            wait_for(lambda: len(site.recommendations()) == 1, "a recommendation")


def test_a_worker_that_lost_its_disk_restores_histories_from_the_changelog(site: Site) -> None:
    site.fill_index()
    with site.worker(name="first"):
        site.producer.send([site.click(1, 5), site.click(1, 6)])
        wait_for(lambda: audit_kafka(site.config).ok, "the first clicks")
    with site.worker(name="second"):  # another data_dir
        site.producer.send([site.click(1, 7)])
        wait_for(lambda: audit_kafka(site.config).ok, "the third click")
    assert site.recommendations()[-1].history_length == 3


def test_tail_shows_recommendations(site: Site) -> None:
    site.fill_index()
    with site.worker():
        site.producer.send([site.click(7, 5), site.click("anna", 6)])
        wait_for(lambda: len(site.recommendations()) == 2, "the recommendations")
    shown = site.run("streams", "tail", "--from-beginning", "--limit", "2")
    assert shown.returncode == 0, shown.stderr
    assert "user 7" in shown.stdout
    assert "user anna" in shown.stdout
    raw = site.run("streams", "tail", "--from-beginning", "--limit", "1", "--json", "--user", "anna")
    assert orjson.loads(raw.stdout)["user_id"] == "anna"
