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
