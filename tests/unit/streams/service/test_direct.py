"""Direct routes: the same answers as FastAPI's, and the kinds of routes that they cannot be."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field, SecretStr
from starlette.responses import Response

from configs.errors import TransientError
from configs.loader import load_service
from streams.errors import RestartRequired
from streams.metrics import ServiceMetrics
from streams.service.access import Access
from streams.service.app import service_app
from streams.service.direct import DirectRoute

READ, WRITE = "r" * 16, "w" * 16
_JSON = {"Content-Type": "application/json"}


class _Body(BaseModel, extra="forbid"):
    users: Annotated[list[int], Field(max_length=3)]
    fault: str = ""


async def _endpoint(body: _Body) -> Response:
    if body.fault:
        raise {
            "transient": TransientError("Milvus", "down"),
            "restart": RestartRequired("the collection was dropped"),
        }.get(body.fault) or ZeroDivisionError("a secret defect")
    return Response(json.dumps(body.users), media_type="application/json")


def _app(route_class: type[APIRoute], restarts: list[RestartRequired], max_body_bytes: int = 2000) -> FastAPI:
    access = Access({"read": SecretStr(READ), "write": SecretStr(WRITE)})
    router = APIRouter(prefix="/v1", dependencies=[Depends(access.requires("read"))], route_class=route_class)
    router.post("/direct", response_model=list[int])(_endpoint)
    settings = load_service(
        None, [f"service.max_body_bytes={max_body_bytes}", "service.cors_origins=['https://shop.example']"], {}
    )
    return service_app(settings.service, [router], ServiceMetrics(CollectorRegistry()), on_restart=restarts.append)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"users": [1, 2]}', _JSON, 200),
        (b'{"users": [1, 2]}', {"Content-Type": "application/json; charset=utf-8"}, 200),
        (b'{"users": [1, 2]}', {"Content-Type": "application/vnd.shop+json"}, 200),
        (b'{"users": [1, 2]}', {"Content-Type": "text/plain"}, 422),
        (b'{"users": [1, 2]}', {"Content-Type": ""}, 422),
        (b'{"users": [1, 2, 3, 4]}', _JSON, 422),
        (b'{"users": [1, "x"]}', _JSON, 422),
        (b"{}", _JSON, 422),
        (b"", _JSON, 422),
        (b"{", _JSON, 422),
        (b" " * 3000, _JSON, 413),
        (b'{"users": [], "fault": "transient"}', _JSON, 503),
        (b'{"users": [], "fault": "restart"}', _JSON, 503),
    ],
)
def test_a_direct_route_answers_as_fastapi_does(content: bytes, headers: dict[str, str], status: int) -> None:
    assert _asked(APIRoute, content, headers, READ) == _asked(DirectRoute, content, headers, READ)
    assert _asked(DirectRoute, content, headers, READ)[0] == status


@pytest.mark.parametrize(("content", "status"), [(b"\xff", 422), (b'{"users": [], "fault": "defect"}', 500)])
def test_other_scripts_may_read_every_problem_of_a_direct_route(content: bytes, status: int) -> None:
    found, _, headers, _ = _asked(DirectRoute, content, _JSON, READ)
    assert found == status and headers["access-control-allow-origin"] == "https://shop.example"


def test_a_body_with_very_many_faults_is_refused_without_looking_at_each() -> None:
    body = {"users": [1], **{f"k{n}": 1 for n in range(1001)}}
    client = TestClient(_app(DirectRoute, [], max_body_bytes=20_000), "http://localhost")
    answer = client.post("/v1/direct", json=body, headers={"Authorization": f"Bearer {READ}"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "body: 1001 of its fields are wrong")
    assert "errors" not in answer.json()


@pytest.mark.parametrize("content", [b'{"users": [1]}', b"{", b" " * 3000])
@pytest.mark.parametrize(("token", "status"), [(WRITE, 403), ("wrong", 401), ("", 401)])
def test_without_the_scope_nothing_is_read(content: bytes, token: str, status: int) -> None:
    found = _asked(DirectRoute, content, _JSON, token)
    assert found[0] == status
    assert ("www-authenticate" in found[2]) == (status == 401)


def _asked(route_class: type[APIRoute], content: bytes, headers: dict[str, str], token: str) -> tuple[Any, ...]:
    """Return status, what the body says, the headers and the number of restarts."""
    restarts: list[RestartRequired] = []
    client = TestClient(_app(route_class, restarts), "http://localhost")
    sent = {**headers, "Origin": "https://shop.example", **({"Authorization": f"Bearer {token}"} if token else {})}
    answer = client.post("/v1/direct", content=content, headers=sent)
    assert "secret" not in answer.text
    said = answer.json()
    if answer.is_error:
        said = said["type"], [error["field"].split(".")[0] for error in said.get("errors", [])]
    others = {name: text for name, text in answer.headers.items() if name not in ("x-request-id", "content-length")}
    return answer.status_code, said, others, len(restarts)


def test_requests_that_no_direct_route_answers_reach_fastapi() -> None:
    client = TestClient(_app(DirectRoute, []), "http://localhost")
    assert client.get("/v1/direct").status_code == 405
    assert client.post("/v1/other").status_code == 404


async def _without_body() -> Response:
    return Response()


async def _with_two(body: _Body, other: _Body) -> Response:
    return Response()


async def _with_a_model(body: _Body) -> _Body:
    return body


async def _dependency() -> None:
    return None


@pytest.mark.parametrize(
    ("endpoint", "path", "options", "fault"),
    [
        (_without_body, "/a", {}, "one body"),
        (_with_two, "/a", {}, "one body"),
        (_with_a_model, "/a", {}, "one body"),
        (_endpoint, "/a/{user}", {}, "one body"),
        (_endpoint, "/a", {"dependencies": [Depends(_dependency)]}, "no dependency other"),
    ],
)
def test_a_route_that_would_be_answered_otherwise_is_refused(
    endpoint: Callable[..., Awaitable[Response]], path: str, options: dict[str, Any], fault: str
) -> None:
    router = APIRouter(route_class=DirectRoute)
    with pytest.raises(TypeError, match=fault):
        router.post(path, **options)(endpoint)
