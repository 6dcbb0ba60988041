"""The recall service beside a worker, on real Kafka and Milvus."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedded import ports
from embedded.program import Program
from streams.messages.recommendations import Recommendation
from streams.milvus.index import MilvusIndex
from streams.recall.factory import build_engine
from tests.chaos.proxy import Proxy
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

USERS = 1000


@pytest.fixture(name="milvus_proxy")
def _milvus_proxy(milvus_lite: str) -> Iterator[Proxy]:
    proxy = Proxy()
    proxy.target = int(milvus_lite.rsplit(":", 1)[1])
    yield proxy
    proxy.close()


def _call(port: int, method: str, path: str, body: object = None) -> tuple[int, HTTPMessage, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


def _start(site: Site, port: int, milvus_port: int) -> Program:
    own = ["--set", f"service.port={port}", "--set", f"milvus.uri=http://127.0.0.1:{milvus_port}"]
    data = ["--set", f"service.data_dir={site.data_dir('service')}", "--set", "milvus.timeout=5"]
    return site.start("streams", "service", *own, *data, name="service")


def _newest(site: Site) -> dict[str, Recommendation]:
    found: dict[str, Recommendation] = {}
    for recommendation in site.recommendations():
        before = found.get(str(recommendation.user_id))
        if before is None or before.source_offset < recommendation.source_offset:
            found[str(recommendation.user_id)] = recommendation
    return found


def _columns(answer: dict[str, Any]) -> tuple[list[int], list[float], list[int]]:
    items = answer["items"]
    return [i["item_id"] for i in items], [i["score"] for i in items], [i["interest"] for i in items]


def test_worker_and_service_give_the_same_answers_and_an_outage_of_milvus_ends_by_itself(
    site: Site, milvus_proxy: Proxy
) -> None:
    site.fill_index()
    histories = _histories(300)
    published = _answered_by_a_worker(site, histories)
    (port,) = ports.pick(1)
    service = _start(site, port, milvus_proxy.port)
    try:
        service.await_http(port, "/readyz")
        _compare(port, site, histories, published)
        _cut_milvus(port, milvus_proxy)
        started = time.monotonic()
        assert service.stop(), "SIGTERM ends it"
        assert time.monotonic() - started < 5.0
        assert service.poll() == 0
        _drop_collection(site, milvus_proxy)
    finally:
        service.stop()


@pytest.mark.standalone
@pytest.mark.timeout(600)
def test_worker_and_service_give_the_same_answers_from_a_graph_of_the_standalone_milvus(
    tmp_path: Path, kafka: str, milvus_standalone: str
) -> None:
    # Large enough for sealed segments with graphs, with the shipped `hnsw_ef`: searches are approximate.
    site = Site(tmp_path, kafka, milvus_standalone, items=20_000, settings={"milvus.hnsw_ef": 100})
    site.create_topics()
    site.fill_index()
    index = site.index()
    index.seal()
    wait_for(lambda: index.indexed_count() == 20_000, "the graph")
    (port,) = ports.pick(1)
    service = _start(site, port, int(milvus_standalone.rsplit(":", 1)[1]))
    try:
        service.await_http(port, "/readyz")
        for attempt in range(6):
            histories = _histories(20_000, f"{attempt}-")
            before = _found(index, site, histories)
            published = _answered_by_a_worker(site, histories)
            try:
                _compare(port, site, histories, published)
                break
            except AssertionError:
                # Milvus merges segments when it likes, and then finds other items: to both, from then on.
                if _found(index, site, histories) == before:
                    raise
        else:
            pytest.fail("Milvus has rebuilt its graph in each attempt")
    finally:
        service.stop()
        index.close()
        site.drop_index()


def _found(index: MilvusIndex, site: Site, histories: dict[str, list[int]]) -> list[list[float]]:
    """Return what the same searches find now, in this process."""
    engine = build_engine(site.config.recall, site.artifact, index)
    newest = [np.array(items[-site.config.history.length :], dtype=np.int64) for items in histories.values()]
    return [
        [] if found is None else [*found.item_ids.tolist(), *found.scores.tolist()] for found in engine.recall(newest)
    ]


def _histories(items: int, prefix: str = "u") -> dict[str, list[int]]:
    rng = np.random.default_rng(7)
    return {f"{prefix}{n}": rng.integers(1, items + 1, size=rng.integers(1, 25)).tolist() for n in range(USERS)}


def _answered_by_a_worker(site: Site, histories: dict[str, list[int]]) -> dict[str, Recommendation]:
    """Send the histories as clicks to a worker; return each user's newest recommendation."""
    lengths = {user: min(len(items), site.config.history.length) for user, items in histories.items()}
    with site.worker():
        site.producer.send([site.click(user, item) for user, items in histories.items() for item in items])
        wait_for(
            lambda: {u: r.history_length for u, r in _newest(site).items() if u in lengths} == lengths, "all answers"
        )
    return _newest(site)


def _recommended(port: int, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer; on a busy machine, Milvus may need longer than the service allows."""
    answers: list[dict[str, Any]] = []

    def is_answered() -> bool:
        status, _, body = _call(port, "POST", "/v1/recommendations", {"requests": requests})
        assert status in (200, 503), body
        answers.append(body)
        return status == 200

    wait_for(is_answered, "an answer")
    return answers[-1]


def _compare(port: int, site: Site, histories: dict[str, list[int]], published: dict[str, Recommendation]) -> None:
    users = list(histories)
    for begin in range(0, len(users), 100):
        chunk = users[begin : begin + 100]
        newest = [histories[user][-site.config.history.length :] for user in chunk]
        for requests in ([{"user_id": user} for user in chunk], [{"history": history} for history in newest]):
            body = _recommended(port, requests)
            assert body["model_version"] == site.artifact.model_version
            for user, answer in zip(chunk, body["answers"], strict=True):
                ids, scores, interests = _columns(answer)
                worker = published[user]
                assert (ids, interests) == (worker.item_ids, worker.interests), user
                assert scores == worker.scores, user
    for user in users[:20]:
        status, _, body = _call(port, "GET", f"/v1/users/{user}/recommendations")
        assert (status, _columns(body)) == (
            200,
            (published[user].item_ids, published[user].scores, published[user].interests),
        )
        assert (
            _call(port, "GET", f"/v1/users/{user}/history")[2]["items"]
            == histories[user][-site.config.history.length :]
        )
    assert _call(port, "GET", "/v1/items/7")[2]["trained"] is True
    assert len(_call(port, "GET", "/v1/items/7/similar?top_k=5")[2]["items"]) == 5


def _cut_milvus(port: int, milvus_proxy: Proxy) -> None:
    body = {"requests": [{"history": [1, 2, 3]}]}
    milvus_proxy.cut()
    status, headers, problem = _call(port, "POST", "/v1/recommendations", body)
    assert (status, headers["Retry-After"], problem["type"]) == (503, "1", "urn:mindstream:problem:unavailable")
    assert _call(port, "GET", "/v1/users/u0/history")[0] == 200, "what needs no Milvus goes on"
    wait_for(lambda: _call(port, "GET", "/readyz")[0] == 503, "the service to say that Milvus is missing")
    assert _call(port, "GET", "/healthz")[0] == 200
    milvus_proxy.reconnect()
    wait_for(lambda: _call(port, "POST", "/v1/recommendations", body)[0] == 200, "the service to answer again")
    wait_for(lambda: _call(port, "GET", "/readyz")[0] == 200, "the service to be ready again")


def _drop_collection(site: Site, milvus_proxy: Proxy) -> None:
    (port,) = ports.pick(1)
    service = _start(site, port, milvus_proxy.port)
    try:
        service.await_http(port, "/readyz")
        site.drop_index()
        assert _call(port, "POST", "/v1/recommendations", {"requests": [{"history": [1, 2, 3]}]})[0] == 503
        assert service.wait(30) == 75, "another process may find the collection again"
    finally:
        service.stop()
