"""Tokens and scopes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fastapi import APIRouter, Depends
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from configs.errors import ConfigError
from configs.loader import load_service
from streams.metrics import ServiceMetrics
from streams.service.access import SCOPES, Access, Scope, load_access
from streams.service.app import service_app
from tests.unit.streams.service.world import ServiceWorld

READ, WRITE = "read-token-of-16-characters", "write-token-of-16-characters"


def _client(access: Access) -> TestClient:
    router = APIRouter()
    for scope in SCOPES:

        @router.get(f"/{scope}", dependencies=[Depends(access.requires(scope))])
        async def allowed() -> str:
            return "yes"

    app = service_app(load_service(None, (), {}).service, [router], ServiceMetrics(CollectorRegistry()))
    return TestClient(app, "http://localhost")


def _status(client: TestClient, scope: Scope, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.get(f"/{scope}", headers=headers).status_code


def test_each_token_has_its_own_scope() -> None:
    client = _client(Access({"read": SecretStr(READ), "write": SecretStr(WRITE), "admin": None}))
    expected: dict[tuple[Scope, str | None], int] = {
        ("read", READ): 200,
        ("read", WRITE): 403,
        ("read", None): 401,
        ("read", "unknown"): 401,
        ("write", WRITE): 200,
        ("write", READ): 403,
        ("write", None): 401,
        ("admin", READ): 403,
        ("admin", WRITE): 403,
        ("admin", None): 403,
    }
    assert {key: _status(client, *key) for key in expected} == expected


def test_every_route_needs_the_token_of_its_scope_and_no_other(tmp_path: Path) -> None:
    """A route that is added is read here from the document, and needs a scope in this table."""
    scopes: dict[str, Scope | None] = {
        "GET /healthz": None,
        "GET /readyz": None,
        "GET /metrics": None,
        "POST /v1/recommendations": "read",
        "GET /v1/users/{user_id}/history": "read",
        "GET /v1/users/{user_id}/recommendations": "read",
        "GET /v1/items/{item_id}": "read",
        "GET /v1/items/{item_id}/similar": "read",
        "PUT /v1/items/{item_id}": "write",
        "DELETE /v1/items/{item_id}": "write",
        "POST /v1/clicks": "write",
        "POST /rec/recall": "read",
        "POST /rec/count": "read",
        "POST /rec/insert_data": "admin",
        "POST /qa/drop": "admin",
    }
    tokens = {scope: f"{scope}-token-of-16-characters" for scope in SCOPES}
    world = ServiceWorld(tmp_path, *(f"service.{scope}_token={token}" for scope, token in tokens.items()))
    paths = world.client.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == scopes.keys()
    for route, scope in scopes.items():
        method, path = route.replace("{user_id}", "7").replace("{item_id}", "10").split()
        statuses = {
            sent: world.client.request(method, path, headers={"Authorization": f"Bearer {token}"}).status_code
            for sent, token in tokens.items()
        }
        refused = {sent for sent, status in statuses.items() if status == 403}
        assert refused == (set(SCOPES) - {scope} if scope else set()), route
        assert (world.client.request(method, path).status_code == 401) is (scope is not None), route


def test_without_tokens_reads_are_open_and_writes_are_refused_with_the_remedy() -> None:
    client = _client(Access(dict.fromkeys(SCOPES)))
    assert _status(client, "read", None) == 200
    assert _status(client, "read", "any") == 200
    assert _status(client, "write", WRITE) == 403
    assert "MINDSTREAM_SERVICE_WRITE_TOKEN" in client.get("/write").json()["detail"]


def test_one_text_may_be_the_token_of_two_scopes() -> None:
    client = _client(Access({"read": SecretStr(READ), "write": SecretStr(READ)}))
    assert [_status(client, scope, READ) for scope in SCOPES] == [200, 200, 403]


def test_an_answer_to_a_caller_without_token_says_how_to_send_it() -> None:
    answer = _client(Access({"read": SecretStr(READ)})).get("/read")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_tokens_come_from_environment_and_files_and_never_show(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(WRITE + "\n")
    environ = {"MINDSTREAM_SERVICE_READ_TOKEN": READ, "MINDSTREAM_SERVICE_WRITE_TOKEN_FILE": str(file)}
    config = load_service(None, (), environ)
    access = load_access(config.service)
    client = _client(access)
    with caplog.at_level(logging.DEBUG):
        assert _status(client, "read", READ) == _status(client, "write", WRITE) == 200
    shown = repr(config) + config.model_dump_json() + repr(access) + repr(vars(access)) + caplog.text
    assert READ not in shown and WRITE not in shown


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("service.read_token=short", "at least 16"),
        ("service.admin_token='with a space, but long enough'", "without spaces"),
        ("service.write_token_file=missing", "missing cannot be read"),
    ],
)
def test_unusable_tokens_are_refused(setting: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_access(load_service(None, [setting], {}).service)


def test_token_and_file_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="read_token and read_token_file exclude each other"):
        load_service(None, ["service.read_token_file=x"], {"MINDSTREAM_SERVICE_READ_TOKEN": READ})
