"""The embedded stack with the real servers: Kafka and milvus-lite, and once Milvus standalone.

Each test starts them in a folder of its own; the downloads are shared with the demo.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pymilvus import MilvusClient

from embedded import process
from embedded.errors import EmbeddedError
from embedded.external import VARIABLES
from embedded.instance import CHECKOUT
from embedded.stack import Stack
from embedded.standalone import require_platform

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    Stack(tmp_path, environ={}).down()
    assert process.marked_processes(tmp_path) == []


def embedded(*arguments: str, home: Path, folder: Path) -> subprocess.Popen[str]:
    """Start `python -m embedded …` with neither Java nor Maven on the path and an empty HOME."""
    environ = {name: value for name, value in os.environ.items() if name not in VARIABLES.values()}
    environ |= {"HOME": str(home), "PATH": str(home), "JAVA_HOME": "", "XDG_CACHE_HOME": ""}
    command = [sys.executable, "-m", "embedded", *arguments, "--dir", str(folder)]
    return subprocess.Popen(
        command, env=environ, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def output(command: subprocess.Popen[str], status: int = 0) -> str:
    text, _ = command.communicate()
    assert command.returncode == status, text
    return text


def pids(folder: Path) -> dict[str, int | None]:
    return {server.name: server.pid for server in Stack(folder, environ={}).status()}


def wait_until(condition: Callable[[], object], timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.05)


def listening(pid: int) -> set[str]:
    connections = psutil.Process(pid).net_connections("tcp")
    addresses = {
        connection.laddr.ip
        for connection in connections
        if connection.laddr and connection.status == psutil.CONN_LISTEN
    }
    return {address.removeprefix("::ffff:") for address in addresses}


def test_up_status_and_down_on_the_command_line(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    printed = output(embedded("up", home=home, folder=folder))
    exports = dict(
        line.removeprefix("export ").split("=") for line in printed.splitlines() if line.startswith("export")
    )
    assert set(exports) == set(VARIABLES.values())
    first = pids(folder)
    assert all(first.values())
    for pid in first.values():
        assert pid is not None
        assert listening(pid) == {"127.0.0.1"}

    assert "already runs" in output(embedded("up", home=home, folder=folder))
    assert pids(folder) == first
    assert "running" in output(embedded("status", home=home, folder=folder))

    output(embedded("down", home=home, folder=folder))
    assert process.marked_processes(folder) == []
    assert not any(psutil.pid_exists(pid) for pid in first.values() if pid is not None)
    assert "stopped" in output(embedded("status", home=home, folder=folder), status=3)
    output(embedded("down", "--wipe", home=home, folder=folder))
    assert {path.name for path in folder.iterdir()} <= {"lock"}
    assert list(home.iterdir()) == []


def test_up_works_after_an_up_that_was_killed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    up = embedded("up", home=tmp_path_factory.mktemp("home"), folder=folder)
    stack = Stack(folder, environ={})
    wait_until(lambda: stack.instance.state.get("kafka") is not None)
    up.kill()
    up.communicate()
    left = process.marked_processes(folder)
    assert left, "the servers outlive the command that started them"
    stack.up()
    assert not any(identity.alive for identity in left if identity.pid != stack.milvus.pid)
    assert [server.state for server in stack.status()] == ["running", "running"]


def test_killed_servers_keep_their_data_and_addresses(folder: Path) -> None:
    stack = Stack(folder, environ={})
    addresses = stack.up()
    assert addresses.kafka is not None
    assert addresses.milvus is not None
    topic = NewTopic("kept", 3, 1)
    admin = AdminClient({"bootstrap.servers": addresses.kafka})
    admin.create_topics([topic])["kept"].result(10)
    del admin  # otherwise it logs errors about the killed broker
    with closing(MilvusClient(addresses.milvus)) as client:
        client.create_collection("kept", dimension=2, metric_type="IP")
        client.insert("kept", [{"id": 7, "vector": [1.0, 0.0]}])
    stack.kafka.kill()
    stack.milvus.kill()
    assert process.marked_processes(folder) == []
    assert stack.milvus.start() == addresses.milvus
    assert stack.kafka.start() == addresses.kafka
    with closing(MilvusClient(addresses.milvus)) as client:
        client.load_collection("kept")  # milvus-lite, unlike the real server, does not reload it
        assert client.search("kept", [[1.0, 0.0]], limit=1)[0][0].id == 7
    topics = AdminClient({"bootstrap.servers": addresses.kafka}).list_topics(timeout=10).topics
    assert len(topics["kept"].partitions) == 3


@pytest.mark.standalone
def test_standalone_replaces_lite_at_the_same_address(folder: Path) -> None:
    try:
        require_platform()
    except EmbeddedError as error:
        pytest.skip(str(error))
    lite = Stack(folder, "lite", kafka=False, environ={}).up()
    stack, lines = Stack(folder, "standalone", kafka=False, environ={}), list[str]()
    assert stack.up(lines.append) == lite
    assert any("Milvus (lite)" in line and "is stopped" in line for line in lines)
    assert lite.milvus is not None
    with closing(MilvusClient(lite.milvus)) as client:
        assert client.get_server_version().startswith("v2.3.5")
    assert [server.flavour for server in stack.status()] == ["standalone"]


@pytest.mark.standalone
def test_a_restarted_standalone_creates_no_collection_beside_existing_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This version of Milvus may lose rows of collections that share a channel."""
    try:
        require_platform()
    except EmbeddedError as error:
        pytest.skip(str(error))
    stack = Stack(folder, "standalone", kafka=False, environ={})
    address = stack.up().milvus
    assert address is not None
    with closing(MilvusClient(address)) as client:
        client.create_collection("kept", dimension=2, metric_type="IP")
        client.insert("kept", [{"id": 7, "vector": [1.0, 0.0]}])
        client.create_collection("idle", dimension=2, metric_type="IP")
        client.release_collection("idle")
    stack.milvus.kill()
    monkeypatch.setattr(MilvusClient, "create_collection", None)
    assert stack.milvus.start() == address
    with closing(MilvusClient(address)) as client:
        assert client.search("kept", [[1.0, 0.0]], limit=1)[0][0].id == 7, (
            "the server is ready, so the search succeeds at once"
        )
