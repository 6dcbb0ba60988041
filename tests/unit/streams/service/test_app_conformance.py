"""The service keeps what its OpenAPI document says, whatever it is asked: schemathesis, and randomly changed bodies."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import Receive, Scope, Send

from tests.unit.streams.service.test_openapi import DOCUMENT
from tests.unit.streams.service.world import ServiceWorld

TOKEN = "one-token-for-all-three-scopes"  # noqa: S105 - of a service in memory
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Host": "localhost"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Bodies of each route that are right; what is sent is one of them, changed.
BODIES: dict[tuple[str, str], list[Any]] = {
    ("POST", "/v1/recommendations"): [
        {"requests": [{"history": [10, 20], "top_k": 2}, {"user_id": 42, "history": [30], "exclude": [10]}]},
        {"requests": [{"history": [], "exclude_seen": False}, {"user_id": "Zoë"}]},
    ],
    ("POST", "/rec/recall"): [{"top_k": 2, "hist_item": [[10, 20, 30], [60]]}, {"hist_item": [[]]}],
    ("POST", "/v1/clicks"): [{"user_id": 1, "item_id": 10}, [{"user_id": "a", "item_id": 20, "ts": 1.5e9}]],
    ("PUT", "/v1/items/70"): [{"embedding": [0.6, 0.8, 0, 0]}, {"embedding": [3, 4, 0, 0], "normalise": True}],
}
#: What a place of a body may become.
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    7,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    1.5,
    1e308,
    -0.0,
    "",
    "7",
    "\0",
    "é",
    "x" * 5000,
]
VALUES += [[], [[]], {}, [1] * 2000, {"a": 1}, "\ud800", 10**400]


def _world(folder: Path) -> ServiceWorld:
    tokens = [f"service.{scope}_token={TOKEN}" for scope in ("read", "write", "admin")]
    world = ServiceWorld(folder, *tokens, "service.recallable_timeout=0.1", "service.insert_timeout=1")
    world.client.headers = HEADERS
    return world


@pytest.fixture(name="app", scope="module")
def _app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The service without start and end, which schemathesis repeats for every request."""
    service = _world(tmp_path_factory.mktemp("service")).app

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await service(scope, receive, send)
            return
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return app


@schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text(encoding="utf-8"))).parametrize()
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_those_of_the_document(case: Any, app: Any) -> None:
    case.call_and_validate(app=app, headers=HEADERS, checks=CHECKS)


def _changed(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one place of it replaced, left out, or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        if rng.random() < 0.15:
            return {key: inner for key, inner in value.items() if key != name}
        if rng.random() < 0.1:
            return value | {name + rng.choice("s_\0"): value[name]}
        return value | {name: _changed(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        if rng.random() < 0.15:
            return value[:place] + value[place:] * rng.randrange(3)
        return [*value[:place], _changed(rng, value[place]), *value[place + 1 :]]
    return rng.choice(VALUES)


def _broken(rng: random.Random, text: bytes) -> bytes:
    """Return a text with some bytes replaced, or its end cut off."""
    content = bytearray(text)
    for _ in range(rng.randrange(4)):
        content[rng.randrange(len(content))] = rng.choice(b'\0"{}[],:-+eE.0\xff\xc3N')
    return bytes(content[: rng.randrange(len(content)) + 1]) if rng.random() < 0.3 else bytes(content)


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_no_body_brings_the_service_out_of_its_step(tmp_path: Path, method: str, path: str) -> None:
    world, rng = _world(tmp_path), random.Random(path)
    statuses = set()
    for _ in range(2500):
        body = json.dumps(_changed(rng, rng.choice(BODIES[method, path]))).encode()
        content = _broken(rng, body) if rng.random() < 0.3 else body
        answer = world.client.request(method, path, content=content, headers={"Content-Type": "application/json"})
        statuses.add(answer.status_code)
        assert answer.status_code < 500, (content, answer.text)
        if answer.status_code >= 400:
            problem = answer.json()
            assert answer.headers["content-type"] == "application/problem+json", content
            assert problem["status"] == answer.status_code and problem["detail"], (content, problem)
    assert min(statuses) < 300 and 422 in statuses, "the bodies are too much alike"
