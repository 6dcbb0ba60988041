"""The server on a real socket: requests that arrive too slowly, and requests that the end of the service meets."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.loader import load_service
from model.serving.norms import normalised
from streams.service import process, server
from tests.site import wait_for
from tests.unit.model.test_evaluate import IDS, axes
from tests.unit.streams.service.world import ServiceWorld

ADMIN = {"Authorization": "Bearer admin-token-of-the-tests"}


class Served:
    """A service that listens on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.world = ServiceWorld(
            folder,
            "service.admin_token=admin-token-of-the-tests",
            "service.insert_timeout=5",
            vectors=normalised(axes()),
        )
        self.listener = process.listen(load_service(None, ["service.port=0"], {}).service)
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        self.ending = process._Ending(lambda _: None)
        self.ending.stopping = self.world.items.stopping
        self.ending.server = self.server = server.server_of(self.world.app)
        self.retry_after: str | None = None  # of the last answer
        self.thread = threading.Thread(target=lambda: self.server.run(sockets=[self.listener]))

    def connect(self, *sent: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        for data in sent:
            connection.sendall(data)
        return connection

    def call(self, method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers=ADMIN)
        answer = connection.getresponse()
        body, self.retry_after = json.loads(answer.read()), answer.getheader("Retry-After")
        connection.close()
        return answer.status, body

    @contextmanager
    def running(self) -> Iterator[Served]:
        self.thread.start()
        wait_for(lambda: self.server.started, "the server")
        try:
            yield self
        finally:
            self.server.should_exit = True
            self.thread.join(20)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path).running() as made:
        yield made


def _read_all(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


HEAD = b"POST /rec/recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_connection_whose_request_does_not_arrive_in_time_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.3)
    monkeypatch.setattr(server, "BODY_S", 0.3)
    timeout = b"HTTP/1.1 408 Request Timeout"
    assert _read_all(served.connect()).startswith(timeout)
    assert _read_all(served.connect(b"GET /healthz HTTP/1.1\r\nHost: ")).startswith(timeout)
    assert _read_all(served.connect(HEAD, b'{"hist_it')) == b"", "its body"
    kept = served.connect(PROBE)
    while not kept.recv(65536).endswith(b'{"live":true}'):
        pass
    kept.sendall(PROBE[:20])
    assert _read_all(kept).startswith(timeout), "its second request"


def test_a_byte_now_and_then_does_not_keep_a_connection(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.3)
    with served.connect() as slow, pytest.raises(OSError, match=r"reset|[Bb]roken"):
        _send_slowly(slow)


def _send_slowly(connection: socket.socket) -> None:
    for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"x" * 200:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def test_a_body_may_take_longer_than_a_head_and_an_answer_as_long_as_it_takes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    with served.connect(HEAD) as slow:
        time.sleep(0.4)
        slow.sendall(b'{"hist_item": [[10]]')
        assert b" 422 " in slow.recv(65536), "JSON that ends too early"
    monkeypatch.setattr(served.world.items, "on_ask", lambda: time.sleep(0.4))
    assert served.call("POST", "/rec/insert_data") == (200, len(IDS))


def test_a_connection_whose_request_was_answered_before_its_body_came_serves_the_next_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.3)
    with served.connect(HEAD.replace(b"/rec/recall", b"/nowhere")) as connection:
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 404")
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"x" * 20)
        time.sleep(0.6)
        connection.sendall(PROBE)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_that_no_route_reads_does_not_cut_off_the_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.2)
    monkeypatch.setattr(served.world.items, "on_ask", lambda: time.sleep(0.6))
    head = b"POST /rec/insert_data HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n"
    token = f"Authorization: {ADMIN['Authorization']}\r\n\r\n".encode()
    with served.connect(head + token, b"x" * 200_000) as connection:
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer


def test_a_body_that_never_arrives_is_no_defect_of_the_service(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.2)
    assert _read_all(served.connect(HEAD, b'{"hist_it')) == b""
    served.connect(HEAD, b'{"hist_it').close()
    wait_for(lambda: _requests(served, "/rec/recall", 400) == 2, "both to be counted")
    assert "a request failed" not in caplog.text


def _requests(served: Served, route: str, status: int) -> float:
    labels = {"route": route, "status": str(status)}
    return served.world.registry.get_sample_value("mindstream_service_requests_total", labels) or 0.0


def test_browsers_leave_when_the_service_stops(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with served.connect(b"GET /page/live HTTP/1.1\r\nHost: localhost\r\n\r\n") as browser:
        assert browser.recv(65536).startswith(b"HTTP/1.1 200")
        served.ending.on_signal("SIGTERM")
        served.thread.join(20)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_insert_data_that_waits_when_the_service_stops_says_what_is_left(served: Served) -> None:
    served.world.items.step = 0  # no item worker runs
    answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    asked = threading.Event()
    served.world.items.on_ask = asked.set
    caller = threading.Thread(target=lambda: answers.put(served.call("POST", "/rec/insert_data")))
    caller.start()
    assert asked.wait(20)
    served.ending.on_signal("SIGTERM")
    status, problem = answers.get(timeout=20)
    assert (status, problem["type"]) == (504, "urn:mindstream:problem:items-missing")
    assert "being stopped" in problem["detail"] and "6 messages left" in problem["detail"]
    caller.join()


def test_insert_data_whose_messages_kafka_does_not_acknowledge_is_maybe_written_when_the_service_stops(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.server.config, "timeout_graceful_shutdown", 0.2)
    answered, asked = threading.Event(), threading.Event()
    answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def hang() -> None:
        asked.set()
        answered.wait(20)

    served.world.items.on_send = hang
    caller = threading.Thread(target=lambda: answers.put(served.call("POST", "/rec/insert_data")))
    caller.start()
    assert asked.wait(20)
    served.ending.on_signal("SIGTERM")
    status, problem = answers.get(timeout=20)
    answered.set()
    assert (status, problem["type"]) == (503, "urn:mindstream:problem:maybe-written")
    caller.join()
    assert served.retry_after == "1"
