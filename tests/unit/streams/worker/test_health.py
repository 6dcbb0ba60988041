"""The answers of /healthz and /readyz, also while other clients block."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Gauge

from configs.errors import FatalError, TransientError
from streams.agents.state import AgentState
from streams.milvus.observed import ObservedIndex
from streams.recall.memory import MemoryIndex
from streams.recall.verified import RequiredItems
from streams.worker import http
from streams.worker.catalogue import Catalogue
from streams.worker.health import Health
from streams.worker.http import serve
from streams.worker.lag import PartitionLag
from streams.worker.watchdog import LoopMonitor, Watchdog
from tests.unit.fakes import FailingIndex

READY = AgentState(True, frozenset({0, 3}), True, False, 0.0, 0, None, 0.0)


class Agent:
    topic = "clicks"

    def __init__(self) -> None:
        self.now = READY

    def state(self) -> AgentState:
        return self.now


class Reader:
    """A group that has committed everything, unless Kafka is unavailable or partition 0 is behind."""

    unavailable = False
    behind = 0
    others: frozenset[int] = frozenset()

    def partition_lags(self) -> Mapping[int, PartitionLag]:
        if self.unavailable:
            raise TransientError("Kafka", "unavailable, for the test")
        return {0: PartitionLag(0, self.behind)}

    def readable(self, partition: int, offset: int) -> bool:
        return True

    def owned_by_others(self) -> frozenset[int]:
        return self.others


class World:
    def __init__(self) -> None:
        self.time = 0.0
        self.registry = CollectorRegistry()
        self.items = MemoryIndex("m1", 4)
        self.items.upsert(np.arange(1, 10), np.ones((9, 4), dtype=np.float32))
        self.milvus = FailingIndex(self.items, failures=0)
        self.index = ObservedIndex(self.milvus, max_age_s=20.0, clock=self.clock)
        self.loop_monitor = LoopMonitor(self.clock)
        self.agent, self.reader = Agent(), Reader()
        self.watchdog = Watchdog(100.0, 300.0, self.loop_monitor, exit_process=lambda _: None, clock=self.clock)
        self.watchdog.watch(self.agent, self.reader, Gauge("lag", "lag", ["partition"], registry=self.registry))
        self.catalogue = Catalogue(self.index, RequiredItems(10, 0.9, Path("artifact")), self.registry, self.clock)
        self.catalogue.count()
        self.health = self.of({"clicks": self.agent})
        self.watchdog.check()

    def of(self, agents: Mapping[str, Agent]) -> Health:
        return Health(agents, self.index, self.catalogue, self.watchdog, self.loop_monitor, "m1")

    def clock(self) -> float:
        return self.time

    def missing(self) -> list[str]:
        ok, body = self.health.ready()
        assert ok is not bool(body["missing"])
        missing: list[str] = body["missing"]
        return missing

    def serve(self) -> int:
        return serve("127.0.0.1", 0, self.health, self.registry)


def test_readyz_lists_partitions_model_and_servers() -> None:
    ok, body = World().health.ready()
    assert ok
    assert body == {
        "ready": True,
        "missing": [],
        "agents": {"clicks": {"partitions": [0, 3], "restored": True}},
        "model_version": "m1",
        "milvus": "answers",
        "kafka": "answers",
    }


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(READY, partitions=None, acquired=False), "clicks: no partitions are assigned"),
        (replace(READY, acquired=False, acquiring=True), "clicks: histories are being restored"),
        (
            replace(READY, retrying_s=12.0, call="a batch of 3 messages"),
            "clicks: a batch of 3 messages has been retried",
        ),
    ],
)
def test_not_ready_names_what_is_missing(state: AgentState, reason: str) -> None:
    world = World()
    world.agent.now = state
    (missing,) = world.missing()
    assert missing.startswith(reason)


def test_a_worker_without_partitions_is_ready_while_others_own_them_all() -> None:
    world = World()
    world.agent.now = replace(READY, partitions=frozenset(), acquired=False)
    assert "it is not known yet whether other workers own them" in world.missing()[0]
    world.watchdog.check()
    assert world.missing() == ["clicks: it owns no partitions, and no worker owns partitions [0]"]
    world.reader.others = frozenset({0})
    world.watchdog.check()
    assert world.missing() == []
    world.reader.unavailable = True
    world.watchdog.check()
    assert len(world.missing()) == 2, "nothing is known now"


def test_a_click_worker_is_not_ready_until_the_collection_is_filled() -> None:
    world = World()
    world.items.delete(np.arange(1, 8))
    world.time += 60.0
    world.health.ping()
    text = (
        "catalogue: the collection holds 2 of 10 items; publish them: python -m producers.items --artifact artifact; "
        "if they were published, see python -m streams deadletters list; if so many are enough, "
        "lower recall.catalogue_share"
    )
    assert world.missing() == [text]
    assert world.of({"items": world.agent}).ready()[0], "the item agent fills it"
    world.agent.now = replace(READY, started=False, partitions=None, acquired=False)
    assert world.missing() == [text, "clicks: it has not started yet"]
    world.loop_monitor.tick()
    assert world.health.live()[0]


def test_nothing_is_ready_before_kafka_was_asked_about_every_agent() -> None:
    world = World()
    silent, items = Reader(), Agent()
    silent.unavailable = True
    world.watchdog.watch(items, silent, Gauge("other", "lag", ["partition"], registry=world.registry))
    world.watchdog.check()
    assert world.missing() == ["kafka: Kafka: unavailable, for the test"]
    world.reader.unavailable, silent.unavailable = True, False
    world.watchdog.check()
    assert world.missing() == ["kafka: Kafka: unavailable, for the test"], "the first agent's fault, too"


def test_an_unavailable_kafka_makes_it_not_ready() -> None:
    world = World()
    world.reader.unavailable = True
    world.watchdog.check()
    assert world.missing() == ["kafka: Kafka: unavailable, for the test"]


def test_milvus_is_pinged_only_without_traffic() -> None:
    world = World()
    query = np.ones((1, 4), dtype=np.float32)
    world.milvus.failures = 1
    with pytest.raises(TransientError):
        world.index.search(query, 1)
    assert world.missing() == ["milvus: Milvus: unavailable, for the test"]
    world.index.search(query, 1)
    assert world.missing() == []

    world.milvus.failures = 1
    world.health.ping()
    assert world.milvus.failures == 1, "the search has just shown that Milvus responds"
    world.time += 10.0
    world.health.ping()
    assert world.missing() == ["milvus: Milvus: unavailable, for the test"]
    world.time += 10.0
    world.health.ping()
    assert world.missing() == []


def test_an_old_answer_of_milvus_proves_nothing() -> None:
    world = World()
    world.time += 30.0
    assert world.missing() == ["milvus: no answer for 30 s"]


def test_a_hanging_event_loop_is_not_alive() -> None:
    world = World()
    assert world.health.live()[0]
    world.time += 15.0
    ok, body = world.health.live()
    assert not ok
    assert body["reasons"] == ["the event loop has not run for 15 s"]
    world.loop_monitor.tick()
    assert world.health.live()[0]


def test_a_stall_of_half_the_timeout_is_not_alive() -> None:
    world = World()
    world.reader.behind = 5
    for _ in range(11):
        assert world.health.live()[0]
        world.time += 5.0
        world.loop_monitor.tick()
        world.watchdog.check()
    ok, body = world.health.live()
    assert not ok
    assert "clicks has been stalled" in body["reasons"][0]


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _json(port: int, path: str) -> tuple[int, Any]:
    status, body = _get(port, path)
    return status, json.loads(body)


def test_the_three_paths() -> None:
    world = World()
    port = world.serve()
    status, body = _get(port, "/metrics")
    assert status == 200
    assert "# TYPE lag gauge" in body
    assert _json(port, "/healthz") == (200, {"live": True, "reasons": []})
    assert _json(port, "/readyz")[0] == 200
    world.agent.now = replace(READY, partitions=None)
    assert _json(port, "/readyz")[0] == 503
    assert _get(port, "/somewhere")[0] == 404


def test_a_taken_port_is_refused_with_a_remedy() -> None:
    world = World()
    port = world.serve()
    with pytest.raises(FatalError, match=r"worker\.metrics_port") as refusal:
        serve("127.0.0.1", port, world.health, world.registry)
    assert "--set worker.metrics_port=" in str(refusal.value)
    with pytest.raises(FatalError, match=r"worker\.metrics_host no\.such\.host\.invalid"):
        serve("no.such.host.invalid", 0, world.health, world.registry)


def test_clients_that_send_no_request_do_not_block_and_are_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_CLIENT_TIMEOUT_S", 0.5)
    port = World().serve()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    assert _get(port, "/healthz")[0] == 200
    for client in silent:
        client.settimeout(10)
        client.sendall(b"GET /healthz HTTP/1.0\r\nX: ")  # and nothing more
        assert client.recv(1) == b""
        client.close()
    assert _get(port, "/healthz")[0] == 200
