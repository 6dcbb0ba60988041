"""Servers named in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded import external, ports
from embedded.errors import EmbeddedError
from embedded.stack import Stack
from tests.unit.embedded.toy_servers import ToyServer


def test_an_external_server_is_checked_and_not_stopped(folder: Path, taken: int) -> None:
    environ = {"MINDSTREAM_KAFKA": f"127.0.0.1:1,127.0.0.1:{taken}", "MINDSTREAM_MILVUS": f"http://127.0.0.1:{taken}"}
    stack = Stack(folder, environ=environ)
    assert stack.up().exports() == environ
    assert [server.state for server in stack.status()] == ["external", "external"]
    stack.down()
    assert not (folder / "state.json").exists()
    with pytest.raises(EmbeddedError, match="external server"):
        _ = stack.kafka


def test_an_unreachable_external_server_is_an_error(folder: Path) -> None:
    (port,) = ports.pick(1)
    stack = Stack(folder, environ={"MINDSTREAM_KAFKA": f"127.0.0.1:{port}"})
    with pytest.raises(EmbeddedError, match=rf"No server answers at 127\.0\.0\.1:{port} \(MINDSTREAM_KAFKA\).*unset"):
        stack.up()
    assert [server.state for server in stack.status()] == ["unreachable"]


def test_the_exported_address_of_our_own_server_is_not_external(stack: Stack, toy: ToyServer) -> None:
    exported = stack.up().exports()
    stack.down()
    stack._environ = exported
    assert stack.up().exports() == exported
    assert stack.kafka is toy


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        ("kafka", "a:1, b:2", [("a", 1), ("b", 2)]),
        ("kafka", "a", [("a", 9092)]),
        ("kafka", "[::1]:5", [("::1", 5)]),
        ("milvus", "http://a", [("a", 19530)]),
        ("milvus", "https://a", [("a", 443)]),
        ("milvus", "a:7", [("a", 7)]),
    ],
)
def test_endpoints(name: str, address: str, expected: list[tuple[str, int]]) -> None:
    assert external.ExternalServer(name, address).endpoints() == expected


@pytest.mark.parametrize(("name", "address"), [("kafka", "a:b"), ("kafka", ","), ("milvus", "http://")])
def test_an_invalid_address_is_an_error(name: str, address: str) -> None:
    with pytest.raises(EmbeddedError, match="names no server"):
        external.ExternalServer(name, address).endpoints()
