"""Readiness of the service, and its pings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from configs.errors import FatalError, TransientError
from model.arrays import FloatArray, IdArray
from streams.errors import RestartRequired
from streams.ports import ReplicaLag
from tests.unit.model.test_evaluate import IDS
from tests.unit.streams.service.world import ServiceWorld


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> ServiceWorld:
    return ServiceWorld(tmp_path)


def test_a_service_with_everything_is_ready(world: ServiceWorld) -> None:
    ready = world.health.ready()
    assert ready.ready and ready.missing == [] and ready.milvus == "answers"
    assert ready.replicas["histories"].age_s == 0.5
    assert world.client.get("/healthz").json() == {"live": True}


def test_an_unfilled_collection_is_named_and_the_log_has_the_remedy(
    world: ServiceWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.memory.delete(IDS[:3])
    world.catalogue.count()
    answer = world.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == ["catalogue: the collection lacks items of the model"]
    world.health.ping()
    assert "the collection holds 3 of 6 items; publish them" in caplog.text


@pytest.mark.parametrize(
    ("lag", "text"),
    [
        (ReplicaLag(5, None, caught_up=False), "recommendations: the copy is not complete yet, 5 messages"),
        (ReplicaLag(0, 61.0, caught_up=True), "recommendations: the copy is 61 s old"),
    ],
)
def test_a_copy_that_is_behind_is_named(world: ServiceWorld, lag: ReplicaLag, text: str) -> None:
    world.newest.now = lag
    (missing,) = world.health.ready().missing
    assert missing.startswith(text)


def test_searches_that_are_not_passed_on_make_the_service_unready(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    complete = world.memory.search

    def nothing(queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        ids, scores = complete(queries, limit)
        return np.zeros_like(ids), scores

    monkeypatch.setattr(world.memory, "search", nothing)
    body = {"requests": [{"history": [10]}]}
    assert world.client.post("/v1/recommendations", json=body).status_code == 503
    world.health.ping()
    (missing,) = world.health.ready().missing
    assert missing == "milvus: searches do not find all items"
    assert "(a search finds 0 of the" in caplog.text
    monkeypatch.setattr(world.memory, "search", complete)
    world.health.ping()
    assert world.health.ready().ready


def test_a_collection_that_is_another_one_now_is_reported_without_a_request(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.health.ping()
    assert world.restarts == []
    dropped = RestartRequired("the collection was dropped and created again")

    def check_identity() -> None:
        raise dropped

    monkeypatch.setattr(world.memory, "check_identity", check_identity)
    world.health.ping()
    assert world.restarts == [dropped]


def test_a_ping_finds_that_milvus_is_unavailable_and_that_it_answers_again(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.service.health._PING_INTERVAL_S", 0.0)

    async def until(ready: bool) -> None:
        while world.health.ready().ready is not ready:  # noqa: ASYNC110 - it is the pinging that is awaited
            await asyncio.sleep(0)

    async def scenario() -> None:
        world.index.failures = 3
        async with world.health.pinging():
            await asyncio.wait_for(until(False), 10)
            await asyncio.wait_for(until(True), 10)

    asyncio.run(scenario())
    assert len(world.memory.get(np.array(IDS))) == 6


def test_what_milvus_says_is_logged_once_and_shown_to_no_caller(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Milvus goes on refusing it: somebody has taken back the right to it."""

    def check_identity() -> None:
        raise FatalError("user mindstream may not describe items_m_r2; grant it")

    caplog.set_level("INFO")
    with monkeypatch.context() as refused:
        refused.setattr(world.memory, "check_identity", check_identity)
        for _ in range(3):
            world.health.ping()
            answer = world.client.get("/readyz")
            assert answer.status_code == 503
            assert answer.json()["missing"] == ["milvus: it does not answer, or refuses a request"]
            assert answer.json()["milvus"] == "it does not answer, or refuses a request"
            world.client.post("/v1/recommendations", json={"requests": [{"history": [10]}]})  # which Milvus answers
        assert caplog.text.count("user mindstream may not describe") == 1
    world.health.ping()
    world.health.ping()
    assert world.client.get("/readyz").status_code == 200
    assert caplog.text.count("ready: Milvus answers") == 1
    world.index.failures = 2
    for _ in range(2):
        with pytest.raises(TransientError):
            world.parts.index.get(np.array([10]))
        world.health.ping()
    assert world.health.ready().milvus == "it does not answer, or refuses a request"
    assert caplog.text.count("not ready: milvus") == 2
