"""Clicks and items over HTTP: what is written, what is refused, and what the answers say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from configs.errors import FatalError, TransientError
from streams.messages.clicks import decode_click
from streams.messages.items import Item, ItemRemoval, decode_item
from streams.partitioning import KeyPartitions
from streams.service.problems import Problem
from streams.service.write_routes import _recallable_after_s, _write
from tests.unit.streams.service.world import ServiceWorld

CLICK_KEYS = KeyPartitions("murmur2", 8)
ZEROS = [0, 0]
ITEM = {"embedding": [0.6, 0.8, *ZEROS]}
TOKEN = {"Authorization": "Bearer write-token-of-the-tests"}


class World(ServiceWorld):
    """A service that its tests write to."""

    def __init__(self, folder: Path) -> None:
        tokens = [f"service.{scope}_token={scope}-token-of-the-tests" for scope in ("read", "write")]
        super().__init__(folder, *tokens, "service.max_clicks=3", "service.recallable_timeout=0.2")

    def call(self, method: str, path: str, body: Any = None, content: str | None = None) -> Any:
        headers = TOKEN | ({} if content is None else {"Content-Type": "application/json"})
        return self.client.request(method, path, json=body, content=content, headers=headers)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_click_is_written_as_the_stream_reads_it(world: World) -> None:
    answer = world.call("POST", "/v1/clicks", {"user_id": "Zoë", "item_id": 7, "ts": 1.5e9, "event_id": "e"})
    (sent,) = world.clicks.sent
    assert decode_click(sent.key, sent.value) == ("Zoë", 7, 1.5e9, "e")
    assert sent[:2] == ("clicks", "Zoë".encode())
    assert answer.status_code == 202
    assert answer.json() == {"written": [{"partition": sent.partition, "offset": 0}]}
    assert sent.partition == CLICK_KEYS.target("Zoë".encode())
    assert world.items.messages == []


def test_clicks_are_written_in_order_and_without_a_time_they_are_of_now(world: World) -> None:
    answer = world.call("POST", "/v1/clicks", [{"user_id": n % 2, "item_id": n} for n in (1, 2, 3)])
    clicks = [decode_click(sent.key, sent.value) for sent in world.clicks.sent]
    assert [(click.user_id, click.item_id) for click in clicks] == [(1, 1), (0, 2), (1, 3)]
    assert len({click.ts for click in clicks}) == 1
    assert [place["offset"] for place in answer.json()["written"]] == [0, 1, 2]
    assert world.call("POST", "/v1/clicks", []).json() == {"written": []}


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ('{"user_id": 1, "item_id": 0}', "out-of-range", "padding"),
        ('{"user_id": 1, "item_id": 7, "ts": 1.5e12}', "out-of-range", "divide by 1000"),
        ('{"user_id": 1, "item_id": 7, "ts": NaN}', "missing-field", "ts"),
        ('{"user_id": 1, "item_id": 7, "event_id": "\\ud800"}', "out-of-range", "UTF-8"),
        ('{"user_id": "\\ud800", "item_id": 7}', "invalid-request", "unicode"),
        ('{"user_id": 1, "item_id": 9223372036854775808}', "invalid-request", "item_id"),
        ('{"user_id": true, "item_id": 7}', "invalid-request", "user_id"),
        ('{"user_id": 1.5, "item_id": 7}', "invalid-request", "user_id"),
        ('{"user_id": 1, "item_id": "7"}', "invalid-request", "item_id"),
        ('{"user_id": 1, "item_id": 7, "time": 1}', "invalid-request", "time"),
        ('{"user_id": 1}', "invalid-request", "item_id"),
        ('[{"user_id": 1, "item_id": 7}, {"user_id": 1, "item_id": 0}]', "out-of-range", "click 1"),
        ('[{"user_id": 1, "item_id": 7}, {"user_id": 1}]', "invalid-request", "1.item_id"),
        ("7", "invalid-request", "body"),
        ("{", "invalid-request", "body"),
    ],
)
def test_what_the_stream_would_refuse_is_refused_and_nothing_is_written(
    world: World, body: str, kind: str, text: str
) -> None:
    answer = world.call("POST", "/v1/clicks", content=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == f"urn:mindstream:problem:{kind}"
    assert text in answer.json()["detail"]
    assert world.clicks.sent == []


def test_more_clicks_than_the_limit_are_refused(world: World) -> None:
    answer = world.call("POST", "/v1/clicks", [{"user_id": 1, "item_id": 7}] * 4)
    assert answer.status_code == 422
    assert "service.max_clicks" in answer.json()["detail"]
    assert world.clicks.sent == []
    assert world.call("POST", "/v1/clicks", [{"user_id": 1, "item_id": 7}] * 3).status_code == 202


def test_an_item_is_written_and_removed_as_the_stream_reads_it(world: World) -> None:
    version = world.parts.artifact.model_version
    body = {"embedding": [3, 4, *ZEROS], "title": "A book", "category": "books", "model_version": version}
    answer = world.call("PUT", "/v1/items/-7?normalise=true", body)
    assert answer.status_code == 202
    assert world.call("DELETE", "/v1/items/-7").status_code == 202
    put, removed = world.items.messages
    item = decode_item(put.key, put.value)
    assert isinstance(item, Item)
    assert (item.item_id, item.title, item.category, item.model_version) == (-7, "A book", "books", version)
    np.testing.assert_allclose(item.embedding, [0.6, 0.8, *ZEROS])
    assert decode_item(removed.key, removed.value) == ItemRemoval(-7)
    assert {put.partition, removed.partition} == {world.items.keys.target(b"-7")}
    written = {"partition": put.partition, "offset": 0}
    assert answer.json() == {"item_id": -7, "written": written, "recallable_after_s": None}
    assert world.clicks.sent == []


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("7", {"embedding": [3, 4, 0, 0]}, 422, "divide"),
        ("7", {"embedding": [1, 0, 0]}, 422, "3 numbers"),
        ("7", {"embedding": [0, 0, 0, 0]}, 422, "zero"),
        ("7", {"embedding": [1e99, 0, 0, 0]}, 422, "embedding"),
        ("7", {"embedding": ["1", 0, 0, 0]}, 422, "embedding"),
        ("7", {"embedding": [True, 0, 0, 0]}, 422, "embedding"),
        ("7", {"embedding": []}, 422, "embedding"),
        ("7", {"embedding": [1, 0, 0, 0], "name": "x"}, 422, "name"),
        ("7", {"embedding": [1, 0, 0, 0], "title": "\ud800"}, 422, "UTF-8"),
        ("7", {"embedding": [1, 0, 0, 0], "model_version": "m2"}, 409, "m2"),
        ("0", {"embedding": [1, 0, 0, 0]}, 422, "item_id 0"),
        ("9223372036854775807", {"embedding": [1, 0, 0, 0]}, 422, "item_id 92"),
        ("x", {"embedding": [1, 0, 0, 0]}, 422, "item_id"),
    ],
)
def test_an_item_that_the_stream_would_refuse_is_refused(
    world: World, path: str, body: object, status: int, text: str
) -> None:
    answer = world.call("PUT", f"/v1/items/{path}", content=json.dumps(body))
    assert (answer.status_code, text in answer.json()["detail"]) == (status, True), answer.text
    assert world.items.messages == []


def test_a_request_may_wait_until_the_item_is_recallable(world: World) -> None:
    waited = world.call("PUT", "/v1/items/7?wait=true", ITEM)
    assert (waited.status_code, waited.json()["recallable_after_s"]) == (202, None), "no item worker runs"
    world.items.work()
    waited = world.call("PUT", "/v1/items/7?wait=true", ITEM)
    assert waited.status_code == 200
    assert 0 <= waited.json()["recallable_after_s"] < 20
    at_once = world.call("PUT", "/v1/items/7", ITEM)
    assert (at_once.status_code, at_once.json()["recallable_after_s"]) == (202, None), "it was not asked to wait"


async def _stopped(call: Awaitable[Any]) -> Any:
    """Return the result of a call that the end of the service cancels."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    task.cancel()
    return await task


async def _forever(*_: object) -> Any:
    await asyncio.Event().wait()


def test_what_the_end_of_the_service_cuts_off_says_what_may_have_happened() -> None:
    with pytest.raises(Problem, match="may or may not have been written") as caught:
        asyncio.run(_stopped(_write(Mock(write=_forever), [])))
    assert (caught.value.status_code, caught.value.kind) == (503, "maybe-written")
    assert asyncio.run(_stopped(_recallable_after_s(Mock(wait=_forever), Mock(), Mock()))) is None


#: Requests that write.
WRITES = [
    ("POST", "/v1/clicks", {"user_id": 1, "item_id": 7}),
    ("PUT", "/v1/items/7", ITEM),
    ("DELETE", "/v1/items/7", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_an_unavailable_kafka_is_a_problem_that_says_what_may_have_happened(
    world: World, method: str, path: str, body: object
) -> None:
    world.clicks.error = world.items.error = TransientError("Kafka", "timed out")
    answer = world.call(method, path, body)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"].isdigit()
    assert answer.json()["type"] == "urn:mindstream:problem:maybe-written"
    assert "may or may not have been written" in answer.json()["detail"]
    world.clicks.error = world.items.error = None
    assert world.call(method, path, body).status_code == 202
    world.parts.writes.click_producer.close()
    world.parts.writes.item_producer.close()
    answer = world.call(method, path, body)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:mindstream:problem:not-written")
    assert "nothing was written" in answer.json()["detail"]


def test_a_refusal_by_kafka_is_not_shown_to_callers(world: World) -> None:
    world.clicks.error = FatalError("Kafka refuses: clicks: not authorized")
    answer = world.call("POST", "/v1/clicks", {"user_id": 1, "item_id": 7})
    assert answer.status_code == 500
    assert "authorized" not in answer.text


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("read-token-of-the-tests", 403), ("write-token-of-the-tests", 202)]
)
def test_the_right_to_write_is_needed(world: World, token: str | None, status: int) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for method, path, body in WRITES:
        assert world.client.request(method, path, json=body, headers=headers).status_code == status
    assert len(world.clicks.sent) + len(world.items.messages) == (3 if status == 202 else 0)
