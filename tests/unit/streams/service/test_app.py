"""The app around the routes: request ids, body limit, problem details, log, CORS, lifespan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from fastapi import APIRouter, Body
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from configs.errors import FatalError, TransientError
from configs.loader import load_service
from configs.schema import Service
from streams.errors import BadMessage, RefusedData, RestartRequired
from streams.metrics import ServiceMetrics
from streams.service.app import service_app


class _Body(BaseModel):
    top_k: Annotated[int, Field(le=3)]


def _router() -> APIRouter:
    router = APIRouter()

    @router.post("/body")
    async def body(body: _Body) -> int:
        return body.top_k

    @router.post("/raw")
    async def raw(text: Annotated[str, Body()]) -> int:
        return len(text)

    @router.get("/users/{user_id}/{fault}")
    async def fault(user_id: str, fault: str) -> None:
        raise {
            "transient": TransientError("Milvus", "10.0.0.1 does not answer"),
            "fatal": FatalError("milvus.token is wrong"),
            "restart": RestartRequired("the collection was dropped"),
            "message": BadMessage("wrong_norm", "normalise it"),
            "refused": RefusedData("Milvus", "no such id"),
        }.get(fault) or ZeroDivisionError("secret " + user_id)

    return router


def _settings(*overrides: str) -> Service:
    return load_service(None, overrides, {}).service


@pytest.fixture(name="registry")
def _registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(name="client")
def _client(registry: CollectorRegistry) -> Iterator[TestClient]:
    settings = _settings("service.max_body_bytes=2000", "service.cors_origins=['https://shop.example']")
    with TestClient(service_app(settings, [_router()], ServiceMetrics(registry)), "http://localhost") as client:
        yield client


def test_an_id_is_made_or_adopted_if_it_is_sane(client: TestClient) -> None:
    made = client.post("/body", json={"top_k": 1}).headers["X-Request-ID"]
    assert len(made) == 32
    assert client.post("/body", json={"top_k": 1}).headers["X-Request-ID"] != made
    assert client.get("/nowhere", headers={"X-Request-ID": "shop-1"}).headers["X-Request-ID"] == "shop-1"
    for forged in ("a b", "x" * 65, "", "é"):
        found = client.get("/nowhere", headers={b"X-Request-ID": forged.encode("latin-1")}).headers["X-Request-ID"]
        assert len(found) == 32


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/nowhere", 404, "Not Found"),
        ("/users/jane/transient", 503, "Milvus gives no answer"),
        ("/users/jane/fatal", 500, "its log has the reason"),
        ("/users/jane/defect", 500, "its log has the reason"),
        ("/users/jane/message", 422, "normalise it"),
        ("/users/jane/refused", 422, "Milvus refuses the data"),
    ],
)
def test_every_error_is_a_problem_without_inner_details(
    client: TestClient, path: str, status: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get(path, headers={"X-Request-ID": "shop-1"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert text in problem["detail"]
    assert problem["request_id"] == "shop-1"
    assert not {"secret", "Traceback", "10.0.0.1", "token is wrong"} & set(answer.text.split('"'))
    assert "secret" not in answer.text and "10.0.0.1" not in answer.text and "milvus.token" not in answer.text
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)


def test_a_wrong_body_names_field_and_limit(client: TestClient) -> None:
    problem = client.post("/body", json={"top_k": 4}).json()
    assert problem["status"] == 422
    assert problem["errors"] == [
        {"field": "body.top_k", "message": "Input should be less than or equal to 3", "limit": 3}
    ]
    assert client.post("/body", content=b"{").json()["errors"][0]["field"].startswith("body")


def test_a_body_beyond_the_limit_is_refused_whatever_its_declared_length(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'"'
        for _ in range(3):
            yield b"x" * 1000
        yield b'"'

    assert client.post("/raw", json="x" * 1998).json() == 1998
    for content in (b'"' + b"x" * 3000 + b'"', chunks()):
        answer = client.post("/raw", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "service.max_body_bytes" in answer.json()["detail"]


def test_requests_are_logged_and_counted_by_route_without_users(
    client: TestClient, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mindstream.requests"):
        client.get("/users/jane/message?x=secret", headers={"X-Request-ID": "shop-1"})
        client.get("/jane")
    lines = [record.getMessage() for record in caplog.records if record.name == "mindstream.requests"]
    assert lines[0].startswith("GET /users/{user_id}/{fault} 422 ") and lines[0].endswith(" ms shop-1")
    assert lines[1].startswith("GET other 404 ")
    assert not any("jane" in line or "secret" in line for line in lines)
    labels = {"route": "/users/{user_id}/{fault}", "status": "422"}
    assert registry.get_sample_value("mindstream_service_requests_total", labels) == 1
    assert registry.get_sample_value("mindstream_service_requests_total", {"route": "other", "status": "404"}) == 1


def test_only_configured_origins_may_call_from_a_browser(client: TestClient) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    shop = client.options("/body", headers={"Origin": "https://shop.example", **asked})
    assert shop.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    other = client.options("/body", headers={"Origin": "https://other.example", **asked})
    assert "Access-Control-Allow-Origin" not in other.headers
    app = service_app(_settings(), [_router()], ServiceMetrics(CollectorRegistry()))
    off = TestClient(app, "http://localhost").post(
        "/body", json={"top_k": 1}, headers={"Origin": "https://shop.example"}
    )
    assert "Access-Control-Allow-Origin" not in off.headers


def test_resources_are_entered_in_order_and_left_in_reverse() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def resource(name: str) -> AsyncIterator[None]:
        events.append(f"{name} starts")
        yield
        events.append(f"{name} ends")

    app = service_app(_settings(), [], ServiceMetrics(CollectorRegistry()), [resource("a"), resource("b")])
    with TestClient(app):
        assert events == ["a starts", "b starts"]
    assert events[2:] == ["b ends", "a ends"]


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ((), "localhost:8080", 200),
        ((), "127.0.0.1", 200),
        ((), "[::1]:8080", 200),
        ((), "LOCALHOST", 200),
        ((), "attacker.example", 421),
        ((), "localhost.attacker.example", 421),
        ((), "", 421),
        (("service.host=0.0.0.0",), "recall.shop.example", 200),
        (("service.allowed_hosts=[Recall.shop.example]",), "recall.shop.example:443", 200),
        (("service.allowed_hosts=[recall.shop.example]",), "localhost", 421),
    ],
)
def test_a_page_elsewhere_cannot_read_by_a_name_of_its_own(settings: tuple[str, ...], host: str, status: int) -> None:
    app = service_app(_settings(*settings), [_router()], ServiceMetrics(CollectorRegistry()))
    answer = TestClient(app).post("/body", json={"top_k": 1}, headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert "service.allowed_hosts" in answer.json()["detail"]


def test_the_time_of_a_stream_of_events_is_none_of_a_request(registry: CollectorRegistry) -> None:
    router = APIRouter(prefix="/page")

    @router.get("/live")
    def live() -> StreamingResponse:
        return StreamingResponse(iter(["data: 1\n\n"]), media_type="text/event-stream")

    app = service_app(_settings(), [router], ServiceMetrics(registry))
    assert TestClient(app, "http://localhost").get("/page/live").text == "data: 1\n\n"
    labels = {"route": "/page/live"}
    assert registry.get_sample_value("mindstream_service_requests_total", labels | {"status": "200"}) == 1
    assert not registry.get_sample_value("mindstream_service_request_seconds_count", labels)


def test_what_only_a_new_process_can_end_is_reported() -> None:
    reported: list[RestartRequired] = []
    app = service_app(_settings(), [_router()], ServiceMetrics(CollectorRegistry()), on_restart=reported.append)
    client = TestClient(app, "http://localhost")
    answer = client.get("/users/7/restart")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "dropped" not in answer.text
    assert [str(error) for error in reported] == ["the collection was dropped"]
    client.get("/users/7/fatal")
    assert len(reported) == 1


def test_a_request_that_ends_with_the_service_is_answered_with_a_problem() -> None:
    router = APIRouter()

    @router.get("/cancelled")
    async def cancelled() -> None:
        raise asyncio.CancelledError  # as uvicorn cancels requests that take too long when it stops

    app = service_app(_settings(), [router], ServiceMetrics(CollectorRegistry()))
    answer = TestClient(app, "http://localhost").get("/cancelled")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json" and "X-Request-ID" in answer.headers


def test_probes_may_name_any_host() -> None:
    """An orchestrator's probes name an address."""
    router = APIRouter()

    @router.get("/{path}")
    async def any_path() -> int:
        return 7

    app = service_app(_settings(), [router], ServiceMetrics(CollectorRegistry()))
    client = TestClient(app, "http://10.1.2.3:8080")
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics", "/other")] == [200] * 3 + [421]
