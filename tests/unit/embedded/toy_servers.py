"""Small Python processes in place of Kafka and Milvus."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from embedded.instance import Reporter
from embedded.server import Launch, Server

LISTENS = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print("listening", flush=True)
    time.sleep(60)
"""


class ToyServer(Server):
    """A server that only listens; a test may replace `program`."""

    name, flavour, title, stop_timeout_s = "kafka", "kafka", "Toy", 5.0
    program = LISTENS
    probes = 0

    @property
    def home(self) -> Path:
        return self.instance.folder / "toy"

    def check(self) -> None: ...

    def install(self, report: Reporter) -> None: ...

    def launch(self, port: int, report: Reporter) -> Launch:
        self.home.mkdir(parents=True, exist_ok=True)
        return Launch([sys.executable, "-c", self.program, str(port)], self.home)

    def probe(self, port: int) -> None:
        self.probes += 1

    def ping(self, port: int) -> None:
        socket.create_connection(("127.0.0.1", port), 1).close()


class FailingServer(ToyServer):
    """A server that exits while it starts."""

    name, title = "milvus", "Failing"
    program = "import time; time.sleep(0.3); raise SystemExit('no disk')"


def wait_until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    event = threading.Event()
    for _ in range(int(timeout / 0.02)):
        if condition():
            return
        event.wait(0.02)
    raise AssertionError("the condition did not become true")
