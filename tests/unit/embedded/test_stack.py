"""The stack, with small Python processes as servers: what it starts, finds, ends and refuses."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock

from embedded import ports, process
from embedded.errors import EmbeddedError
from embedded.stack import Flavour, Stack
from embedded.state import Entry
from tests.unit.embedded.toy_servers import FailingServer, ToyServer


def test_a_full_disk_is_refused_before_anything_starts(
    stack: Stack, toy: ToyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**8))
    with pytest.raises(EmbeddedError, match=r"0\.1 GB are free.*--dir"):
        stack.up()
    assert toy.entry is None


def test_up_twice_finds_the_first_and_down_leaves_nothing(stack: Stack, toy: ToyServer, folder: Path) -> None:
    address = stack.up().kafka
    pid, said = toy.pid, list[str]()
    assert pid is not None
    assert stack.up(said.append).kafka == address
    assert (toy.pid, toy.probes) == (pid, 1)
    assert "already runs" in said[0]
    assert [server.state for server in stack.status()] == ["running"]
    stack.down()
    assert process.marked_processes(folder) == []
    assert [server.state for server in stack.status()] == ["stopped"]
    assert stack.up().kafka == address  # the same port again


def test_a_killed_server_restarts_at_its_address(stack: Stack, toy: ToyServer) -> None:
    address, pid = stack.up().kafka, toy.pid
    toy.kill()
    assert [server.state for server in stack.status()] == ["ended"]
    assert toy.start() == address
    assert toy.pid not in (None, pid)


def test_processes_left_by_a_killed_up_are_ended(stack: Stack, toy: ToyServer, folder: Path) -> None:
    environ = process.with_mark(os.environ, folder)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    written = process.spawn(command, environ, folder, folder / "log")
    forgotten = process.spawn(command, environ, folder, folder / "log")
    stack.instance.state.put("kafka", Entry("kafka", 1, written.pid, written.created))
    assert [server.state for server in stack.status()] == ["starting"]
    stack.up()
    assert not written.alive
    assert not forgotten.alive
    assert [identity.pid for identity in process.marked_processes(folder)] == [toy.pid]


def test_if_one_server_fails_none_keeps_running(stack: Stack, toy: ToyServer, folder: Path) -> None:
    stack._wanted["milvus"] = FailingServer(stack.instance)
    with pytest.raises(EmbeddedError, match=r"(?s)Failing ended while it started.*milvus\.log.*no disk"):
        stack.up()
    assert process.marked_processes(folder) == []
    assert toy.pid is None


def test_a_port_other_than_the_running_one_is_refused(stack: Stack, toy: ToyServer) -> None:
    stack.up()
    (toy.requested_port,) = ports.pick(1)
    with pytest.raises(EmbeddedError, match="already runs at"):
        stack.up()


def test_up_without_a_flavour_keeps_the_one_that_runs_or_ran_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = type("Small", (ToyServer,), {"name": "milvus", "flavour": "lite"})
    real = type("Real", (ToyServer,), {"name": "milvus", "flavour": "standalone"})
    monkeypatch.setattr("embedded.stack._MILVUS", {"lite": small, "standalone": real})

    def up(milvus: Flavour | None) -> tuple[str, int | None]:
        stack = Stack(folder, milvus, kafka=False, cache=folder / "cache", environ={})
        stack.up()
        (found,) = stack.status()
        return found.flavour, found.pid

    assert up(None)[0] == "lite"
    running = up("standalone")
    assert running[0] == "standalone"
    assert up(None) == running
    Stack(folder, environ={}).down()
    assert up(None)[0] == "standalone"


def test_wipe_deletes_only_the_files_of_the_stack(stack: Stack, folder: Path) -> None:
    for name in ("kafka", "milvus", "logs", "files-of-others"):
        (folder / name).mkdir()
    stack.down(wipe=True)
    assert {path.name for path in folder.iterdir()} <= {"files-of-others", "lock", "cache"}
    assert (folder / "files-of-others").exists()


def test_a_second_command_waits_for_the_first(stack: Stack, folder: Path) -> None:
    lock, waiting = FileLock(folder / "lock"), threading.Event()
    lock.acquire()
    second = threading.Thread(target=stack.down, kwargs={"report": lambda _: waiting.set()})
    second.start()
    assert waiting.wait(10)
    assert second.is_alive()
    lock.release()
    second.join(10)
    assert not second.is_alive()
