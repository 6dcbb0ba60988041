"""Workers that stall, that must exit while servers are unavailable, and their answers over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from configs.errors import EXIT_CONFIG, EXIT_STALLED, EXIT_TRANSIENT, TransientError
from embedded.program import WorkerProgram, http_get
from embedded.stack import Stack
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_lite: str) -> Site:
    return _filled(tmp_path, kafka, milvus_lite)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers of this module only, because its tests kill them."""
    started = Stack(tmp_path_factory.mktemp("outages"), milvus="lite", environ={})
    started.up()
    yield started
    started.down(wipe=True)


@pytest.fixture
def shaky(tmp_path: Path, stack: Stack) -> Iterator[Site]:
    """A site on servers that the test may kill."""
    addresses = stack.up()
    assert addresses.kafka is not None and addresses.milvus is not None
    yield _filled(tmp_path, addresses.kafka, addresses.milvus)
    stack.up()


def _filled(folder: Path, kafka: str, milvus: str) -> Site:
    site = Site(folder, kafka, milvus)
    site.create_topics()
    wait_for(partial(_fill, site), "Milvus")
    return site


def _fill(site: Site) -> bool:
    try:
        site.fill_index()
    except TransientError:  # its connections may be older than the outage of the last test
        return False
    return True


def _ask(worker: WorkerProgram, path: str) -> tuple[int, Any]:
    status, body = http_get(worker.metrics_port, path)
    return status, json.loads(body)


def _send(site: Site, clicks: int) -> None:
    site.producer.send([site.click(u, 1 + u % 300) for u in range(clicks)])


@dataclass(frozen=True)
class Stuck:
    """A worker that stalled and has exited."""

    site: Site
    status: int | None
    log: str


#: Part that hangs → text in the worker's log.
CAUSES = {"batch": "a batch of", "loop": "the event loop has not run for", "partition": "on partitions [0]"}


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory, kafka: str, milvus_lite: str) -> dict[str, Stuck]:
    """One stalled worker for each cause, all run at the same time."""
    sites = {part: _filled(tmp_path_factory.mktemp(part), kafka, milvus_lite) for part in CAUSES}
    with ThreadPoolExecutor(len(sites)) as pool:
        return dict(zip(sites, pool.map(_run_until_stalled, sites.values(), sites), strict=True))


def _run_until_stalled(site: Site, part: str) -> Stuck:
    worker = site.start_worker(
        "--set",
        "worker.stall_timeout=6",
        name="stuck",
        program=["tests.integration.stuck_worker"],
        environ=os.environ | {"MINDSTREAM_HANGS": part},
    )
    log = site.log("stuck")
    try:
        # Not /readyz: a worker whose event loop hangs restores nothing.
        wait_for(lambda: log.read_text().count("partitions [") >= 2, "the assignment of partitions")
        started = time.monotonic()
        while worker.poll() is None and time.monotonic() < started + 90:
            _send(site, 8)  # other partitions make progress
            with suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=1)
        return Stuck(site, worker.poll(), log.read_text())
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("part", CAUSES)
def test_a_stalled_worker_exits_and_the_next_one_continues(stuck: dict[str, Stuck], part: str) -> None:
    worker = stuck[part]
    assert worker.status == EXIT_STALLED, worker.log
    assert CAUSES[part] in worker.log
    assert "Thread 0x" in worker.log, "the stacks of all threads"
    with worker.site.worker(name="next"):
        wait_for(lambda: audit_kafka(worker.site.config).ok, "the next worker to catch up")


def test_readiness_follows_milvus_and_the_process_stays_alive(shaky: Site, stack: Stack) -> None:
    with shaky.worker("--set", "milvus.timeout=2") as worker:
        body = _ask(worker, "/readyz")[1]
        assert body["agents"]["clicks"] == {"partitions": [0, 1, 2, 3], "restored": True}
        assert body["model_version"] == shaky.artifact.model_version
        stack.milvus.kill()
        wait_for(lambda: _ask(worker, "/readyz")[0] == 503, "the outage of Milvus to be detected without traffic")
        assert any(part.startswith("milvus: ") for part in _ask(worker, "/readyz")[1]["missing"])
        _send(shaky, 10)
        wait_for(lambda: "has been retried" in str(_ask(worker, "/readyz")[1]["missing"]), "a batch that is retried")
        assert _ask(worker, "/healthz") == (200, {"live": True, "reasons": []})
        stack.up()
        wait_for(lambda: _ask(worker, "/readyz")[0] == 200, "readiness after the outage")


def test_a_second_worker_on_the_same_port_is_refused(site: Site) -> None:
    with site.worker() as worker:
        refused = site.run("streams", "worker", "--set", f"worker.metrics_port={worker.metrics_port}")
    assert refused.returncode == EXIT_CONFIG
    assert "worker.metrics_port" in refused.stderr


def test_a_group_whose_leader_does_not_know_the_topic_is_not_ready_and_recovers_within_seconds(
    tmp_path: Path, kafka: str, milvus_lite: str
) -> None:
    """The leader knows no partition, as after an outage: it assigns none, and no worker serves the topic."""
    site = Site(tmp_path, kafka, milvus_lite, partitions=1)
    site.create_topics()
    site.fill_index()
    blind = tmp_path / "blind"
    blind.touch()
    leader = site.start_worker(
        *("--agents", "clicks"),
        name="leader",
        program=["tests.integration.stuck_worker"],
        environ=os.environ | {"MINDSTREAM_HANGS": "metadata", "MINDSTREAM_BLIND": str(blind)},
    )
    try:
        log = site.log("leader")
        wait_for(lambda: "clicks: partitions none" in log.read_text(), "an assignment of nothing")
        other = site.start_worker("--agents", "clicks", name="other")
        wait_for(lambda: "partitions none" in site.log("other").read_text(), "the leader to assign nothing to another")
        missing = ["clicks: it owns no partitions, and no worker owns partitions [0]"]
        for worker in (leader, other):
            wait_for(partial(_lacks, worker, missing), "the owners to be asked for")
        blind.unlink()
        started = time.monotonic()
        wait_for(lambda: "partitions [0]" in log.read_text() + site.log("other").read_text(), "an owner", timeout_s=30)
        assert time.monotonic() - started < 20
        for worker in (leader, other):
            worker.await_ready()  # one of them is a spare worker now
        _send(site, 4)
        wait_for(lambda: len(site.recommendations()) == 4, "the recommendations")
    finally:
        stopped = [worker.stop() for worker in (leader, other)]
    assert all(stopped)


def _lacks(worker: WorkerProgram, missing: list[str]) -> bool:
    status, body = _ask(worker, "/readyz")
    return status == 503 and body["missing"] == missing


def _lags(worker: WorkerProgram) -> list[float]:
    lines = http_get(worker.metrics_port, "/metrics")[1].decode().splitlines()
    return [float(line.split()[1]) for line in lines if line.startswith("mindstream_clicks_lag_messages{")]


def test_markers_of_transactions_are_no_lag(site: Site) -> None:
    settings = {"transactional.id": site.name, "partitioner": "murmur2_random"}
    producer = Producer(site.config.kafka.client_settings(**settings))
    producer.init_transactions()
    with site.worker("--agents", "clicks") as worker:
        for _ in range(3):
            producer.begin_transaction()
            for user in range(40):
                click = site.click(user, 1 + user)
                producer.produce(click.topic, key=click.key, value=click.value)
            producer.commit_transaction()
        wait_for(lambda: audit_kafka(site.config).ok, "the clicks to be answered")
        wait_for(lambda: _lags(worker) == [0.0] * 4, "the lag to be 0", timeout_s=30)


def test_a_broker_that_dies_during_the_start_is_an_outage(shaky: Site, stack: Stack) -> None:
    shaky.drop_index()
    index = shaky.index(create=True)  # empty: the start waits for items, before Faust connects to Kafka
    worker = shaky.start_worker("--agents", "clicks")
    try:
        log = shaky.log("worker")
        wait_for(lambda: "no clicks are taken" in log.read_text(), "the wait for items")
        stack.kafka.kill()
        index.close()
        shaky.fill_index()
        assert worker.wait(timeout=60) == EXIT_TRANSIENT, log.read_text()
    finally:
        worker.stop()


@pytest.mark.parametrize("state", ["idle", "milvus unavailable", "kafka unavailable"])
def test_sigterm_ends_the_worker_within_5_seconds(shaky: Site, stack: Stack, state: str) -> None:
    if state != "idle":
        _send(shaky, 600)
    with shaky.worker("--set", "batch.size=8") as worker:
        log = shaky.log("worker")
        if state != "idle":
            answered = shaky.config.topics.recommendations
            wait_for(lambda: shaky.messages(answered), "some recommendations")
        if state == "milvus unavailable":
            stack.milvus.kill()
            wait_for(lambda: "is retried" in log.read_text(), "a batch that is retried")
        elif state == "kafka unavailable":
            stack.kafka.kill()
        started = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0, log.read_text()
        assert time.monotonic() - started < 5.0
    stack.up()
    if state != "idle":
        with shaky.worker(name="next"):
            wait_for(lambda: audit_kafka(shaky.config).ok, "the next worker to finish", timeout_s=120)
