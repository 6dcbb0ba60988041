"""Clicks and items that the service writes, on real Kafka and Milvus, with real item and click workers behind it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedded import ports
from embedded.program import Program
from embedded.stack import Stack
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

#: The body of the published demonstration, word for word.
RECALL_BODY = """{
  "top_k": 50,
  "hist_item": [[43,23,65,675,3456,8654,123454,54367,234561],\
[675,3456,8654,123454,76543,1234,9769,5670,65443,123098,34219,234098]]
}"""
TOKENS = {scope: f"{scope}-token-of-the-tests" for scope in ("read", "write", "admin")}
ITEMS = 300


class Service:
    """A running service, as its users see it."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self._port = port

    def call(
        self, method: str, path: str, body: str | object = "", scope: str | None = "read", timeout_s: float = 120
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Send a request; return status, JSON and headers."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if scope is not None:
            headers["Authorization"] = f"Bearer {TOKENS[scope]}"
        connection.request(method, path, body if isinstance(body, str) else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text), {name.lower(): value for name, value in response.getheaders()}

    def ok(self, method: str, path: str, body: str | object = "", scope: str | None = "read") -> Any:
        """Send a request that must succeed; return its JSON."""
        status, answer, _ = self.call(method, path, body, scope)
        assert status in (200, 202), answer
        return answer


@contextmanager
def running(site: Site, *settings: str, name: str = "service") -> Iterator[Service]:
    """Run a service in a block, which begins when it is ready."""
    (port,) = ports.pick(1)
    overrides = [f"service.port={port}", f"service.data_dir={site.data_dir(name)}", *settings]
    overrides += [f"service.{scope}_token={token}" for scope, token in TOKENS.items()]
    sets = [argument for setting in overrides for argument in ("--set", setting)]
    program = site.start("streams", "service", *sets, name=name)
    try:
        program.await_http(port, "/healthz")
        yield Service(program, port)
    finally:
        assert program.stop(), f"{name} had to be killed"


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_standalone: str) -> Iterator[Site]:
    new_site = Site(tmp_path, kafka, milvus_standalone, items=ITEMS)
    new_site.create_topics()
    yield new_site
    new_site.drop_index()


@pytest.mark.standalone
def test_all_items_are_inserted_recalled_and_dropped_for_good(site: Site) -> None:
    """Also clicks and items over HTTP, with an item worker and a click worker behind the service."""
    with site.worker("--agents", "items", name="items"), running(site) as service:
        assert service.ok("POST", "/rec/count") == 0
        status, problem, headers = service.call("POST", "/rec/recall", RECALL_BODY)
        assert (status, problem["status"]) == (503, 503), "nothing can be recalled from an empty collection"
        assert "retry-after" in headers

        assert service.ok("POST", "/rec/insert_data", scope="admin") == ITEMS
        assert service.ok("POST", "/rec/count") == ITEMS
        _check_recall(service)
        with site.worker("--agents", "clicks", name="clicks"):
            _check_clicks(site, service)
            _check_items(site, service)
            _check_that_clicks_wait_for_items(site, service)
        assert service.ok("POST", "/qa/drop", scope="admin") == ITEMS
        assert service.ok("POST", "/rec/count") == 0

    with site.worker("--agents", "items", name="items"), running(site, name="restarted") as service:
        time.sleep(2.0)  # the first comparison of rows and topic
        assert service.ok("POST", "/rec/count") == 0
        assert service.ok("POST", "/qa/drop", scope="admin") == 0
        assert service.ok("POST", "/rec/insert_data", scope="admin") == ITEMS
        assert service.ok("POST", "/rec/count") == ITEMS
        _check_recall(service)
    assert site.dead_letters() == []


def _check_recall(service: Service) -> None:
    lists = service.ok("POST", "/rec/recall", RECALL_BODY)
    assert [len(found) for found in lists] == [50, 0], "items 43, 23 and 65 are known; of the second user, none is"
    assert len(set(lists[0])) == 50
    assert service.ok("POST", "/rec/recall", {"hist_item": [], "top_k": 3}) == []
    history = list(range(1, ITEMS))
    assert [
        len(found) for found in service.ok("POST", "/rec/recall", {"top_k": 3, "hist_item": [history, [], [7]]})
    ] == [
        1,  # all others are in the history
        0,
        3,
    ]


def _check_clicks(site: Site, service: Service) -> None:
    """Clicks over HTTP are answered in the stream; concurrent ones are all written."""
    status, problem, _ = service.call("POST", "/v1/clicks", {"user_id": "h", "item_id": 7}, scope="read")
    assert status == 403, problem
    (place,) = service.ok("POST", "/v1/clicks", {"user_id": "h", "item_id": 7}, "write")["written"]
    wait_for(lambda: any(r.user_id == "h" for r in site.recommendations()), "a recommendation")
    newest = next(r for r in site.recommendations() if r.user_id == "h")
    assert (newest.source_partition, newest.source_offset) == (place["partition"], place["offset"])

    def click(user: int) -> None:
        clicks = [{"user_id": user, "item_id": 1 + (user + n) % ITEMS} for n in range(3)]
        assert len(service.ok("POST", "/v1/clicks", clicks, "write")["written"]) == 3

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(click, range(200)))
    keys = [message.key or b"" for message in site.messages(site.config.topics.clicks)]
    assert sorted(keys) == sorted([b"h", *(str(user).encode() for user in range(200) for _ in range(3))])


def _check_items(site: Site, service: Service) -> None:
    """An item over HTTP can be recalled when the answer says so, and not any more once it is removed."""
    vector = np.asarray(site.artifact.item_vectors[6])
    for n in range(3):
        item = service.ok("PUT", f"/v1/items/{9000 + n}?wait=true", {"embedding": vector.tolist()}, "write")
        assert item["recallable_after_s"] < 20
        assert 9000 + n in service.ok("POST", "/rec/recall", {"top_k": 5, "hist_item": [[7]]})[0]
    assert service.ok("POST", "/rec/count") == ITEMS + 3
    for n in range(3):
        service.ok("DELETE", f"/v1/items/{9000 + n}", scope="write")
    wait_for(lambda: service.ok("POST", "/rec/count") == ITEMS, "the removals")


def _check_that_clicks_wait_for_items(site: Site, service: Service) -> None:
    """A running click worker publishes nothing without items; when they are back, it answers what has waited."""
    assert service.ok("POST", "/qa/drop", scope="admin") == ITEMS
    service.ok("POST", "/v1/clicks", {"user_id": "waiting", "item_id": 7}, "write")
    time.sleep(3.0)
    assert not [r for r in site.recommendations() if r.user_id == "waiting"]
    assert service.ok("POST", "/rec/insert_data", scope="admin") == ITEMS
    wait_for(lambda: [r for r in site.recommendations() if r.user_id == "waiting"], "the recommendation")
    (published,) = [r for r in site.recommendations() if r.user_id == "waiting"]
    assert len(published.item_ids) == published.top_k


def test_while_kafka_is_unavailable_reads_go_on_and_writes_say_so(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "servers", milvus="lite", environ={})
    addresses = stack.up()
    assert addresses.kafka is not None and addresses.milvus is not None
    try:
        site = Site(tmp_path, addresses.kafka, addresses.milvus, items=ITEMS)
        site.create_topics()
        site.fill_index()
        click = {"user_id": 42, "item_id": 7}
        with running(site, "service.write_timeout=1.5") as service:
            service.ok("POST", "/v1/clicks", click, "write")
            (broker,) = [server for server in stack.status() if server.name == "kafka"]
            assert broker.pid is not None
            os.kill(broker.pid, 9)
            started = time.monotonic()
            status, problem, headers = service.call("POST", "/v1/clicks", click, "write")
            assert (status, problem["type"]) == (503, "urn:mindstream:problem:maybe-written")
            assert "may or may not have been written" in problem["detail"]
            assert time.monotonic() - started < 10
            assert "retry-after" in headers
            assert len(service.ok("POST", "/rec/recall", {"top_k": 5, "hist_item": [[7]]})[0]) == 5
            assert service.ok("POST", "/rec/count") == ITEMS
            assert service.call("PUT", "/v1/items/7", {"embedding": _vector(site)}, "write")[0] == 503
            assert service.call("POST", "/rec/insert_data", scope="admin")[0] == 503
            stack.up()
            wait_for(lambda: service.call("POST", "/v1/clicks", click, "write")[0] == 202, "the service to recover")
            service.ok("PUT", "/v1/items/7", {"embedding": _vector(site)}, "write")
            wait_for(lambda: service.call("DELETE", "/v1/items/7", scope="write")[0] == 202, "items, too")
    finally:
        stack.down(wipe=True)


def _vector(site: Site) -> list[float]:
    vector: list[float] = np.asarray(site.artifact.item_vectors[6]).tolist()
    return vector
