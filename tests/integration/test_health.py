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

from configs.errors import EXIT_CONFIG, EXIT_STALLED, TransientError
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
