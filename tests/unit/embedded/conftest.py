"""A stack without real servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import process
from embedded.stack import Stack
from tests.unit.embedded.toy_servers import ToyServer


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for identity in process.marked_processes(tmp_path):
        process.end(identity, timeout_s=0)


@pytest.fixture
def stack(folder: Path) -> Stack:
    """A stack without real servers; each test fills `stack._wanted`."""
    return Stack(folder, milvus="none", kafka=False, cache=folder / "cache", environ={})


@pytest.fixture
def toy(stack: Stack) -> ToyServer:
    toy = ToyServer(stack.instance)
    stack._wanted["kafka"] = toy
    return toy


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
