"""Programs: readiness over HTTP, exits, and errors that show the end of the log."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded import ports, program
from embedded.errors import EmbeddedError
from embedded.program import Program, WorkerProgram, http_get
from tests.unit.embedded.toy_servers import wait_until

#: Answers 503 twice, then 200.
SERVES = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
answers = iter([503, 503])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(next(answers, 200))
        self.end_headers()
        self.wfile.write(b"histories are being restored")
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""

Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Python code as a program, which is killed after the test."""
    started: list[Program] = []

    def start(text: str, *arguments: str, metrics_port: int = 0) -> Program:
        log = tmp_path / "program.log"
        with log.open("ab") as output:
            process = subprocess.Popen([sys.executable, "-c", text, *arguments], stdout=output, stderr=output)
        started.append(WorkerProgram("a program", process, log, metrics_port))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_a_program_is_ready_once_it_answers_200(start: Start) -> None:
    (port,) = ports.pick(1)
    worker = start(SERVES, str(port), metrics_port=port)
    assert isinstance(worker, WorkerProgram)
    worker.await_ready()
    assert http_get(port, "/readyz") == (200, b"histories are being restored")


def test_a_worker_has_restored_before_it_is_ready(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = ports.pick(1)
    unready = SERVES.replace("[503, 503]", "[503] * 9999").replace(
        'b"histories are being restored"', """b'{"agents": {"clicks": {"restored": %s}}}' % b"true" """
    )
    worker = start(unready, str(port), metrics_port=port)
    assert isinstance(worker, WorkerProgram)
    worker.await_restored()
    (port,) = ports.pick(1)
    restoring = start(unready.replace('b"true"', 'b"false"'), str(port), metrics_port=port)
    assert isinstance(restoring, WorkerProgram)
    wait_until(lambda: ports.accepts(ports.HOST, port))
    monkeypatch.setattr(program, "READY_TIMEOUT_S", 0.2)
    with pytest.raises(EmbeddedError, match="had not restored its histories"):
        restoring.await_restored()


def test_the_error_of_a_program_that_does_not_become_ready_has_its_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = ports.pick(1)
    unready = start(SERVES.replace("[503, 503]", "[503] * 9999"), str(port))
    wait_until(lambda: ports.accepts(ports.HOST, port))
    monkeypatch.setattr(program, "READY_TIMEOUT_S", 0.2)
    with pytest.raises(EmbeddedError, match=r"not ready after .*/readyz answers 503: histories are being restored"):
        unready.await_http(port, "/readyz")


def test_a_program_that_ends_while_it_starts_shows_the_end_of_its_log(start: Start) -> None:
    (port,) = ports.pick(1)
    failing = start("raise SystemExit('no artifact')")
    with pytest.raises(EmbeddedError, match=r"(?s)a program ended with status 1.*program\.log.*no artifact"):
        failing.await_http(port, "/readyz")
    with pytest.raises(EmbeddedError, match="no artifact"):
        failing.check()


def test_a_program_that_ended_with_status_0_has_not_failed_but_does_not_run(start: Start) -> None:
    done = start("print('sent')")
    assert done.await_success() == "sent\n"
    done.check()
    with pytest.raises(EmbeddedError, match="ended with status 0"):
        done.require_running()


def test_stop_returns_whether_sigterm_was_enough(start: Start) -> None:
    assert start("import time; time.sleep(60)").stop()
    stubborn = start(IGNORES_SIGTERM)
    log = stubborn.log
    assert log is not None
    wait_until(lambda: "up" in log.read_text())
    assert not stubborn.stop(timeout_s=0.2)
    assert stubborn.poll() == -9
    assert stubborn.stop(), "the program has ended already"
