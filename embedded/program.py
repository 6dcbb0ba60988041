"""Programs of this project (`python -m …`), run as a user would run them: their logs, readiness and ends."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGTERM

from embedded import ports
from embedded.errors import EmbeddedError, with_log

#: Seconds that a program gets to become ready on a busy machine.
READY_TIMEOUT_S = 120.0
#: Seconds between SIGTERM and SIGKILL; a worker exits within 5.
STOP_TIMEOUT_S = 20.0
#: Seconds for one answer over HTTP.
_HTTP_TIMEOUT_S = 20.0
#: Seconds between two checks of a condition.
_POLL_S = 0.05


class Program:
    """A running program. It is started by a `Deployment`.

    Args:
        name: for error messages.
        process: the process.
        log: its standard output and standard error; None if they go to the terminal.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path | None) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        return self._process.wait(timeout)

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()

    def check(self) -> None:
        """Raise `EmbeddedError`, which shows the end of the log, if the program has failed."""
        if self._process.poll() not in (None, 0):
            raise self._ended()

    def require_running(self) -> None:
        """Raise `EmbeddedError`, which shows the end of the log, if the program has ended, with any status."""
        if self._process.poll() is not None:
            raise self._ended()

    def await_success(self) -> str:
        """Wait for the end and return the log, empty without one; raise `EmbeddedError` unless the status is 0."""
        self._process.wait()
        self.check()
        return "" if self.log is None else self.log.read_text(errors="replace")

    def await_http(self, port: int, path: str) -> None:
        """Wait until the program answers status 200 to `GET path` on a port of this machine.

        Raises:
            EmbeddedError: it ended, or did not become ready within `READY_TIMEOUT_S`.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            self.require_running()
            reason = "it does not answer"
            try:
                status, body = http_get(port, path)
            except (OSError, HTTPException):
                pass
            else:
                if status == 200:
                    return
                reason = f"{path} answers {status}: {body.decode(errors='replace').strip()}"
            if time.monotonic() > deadline:
                raise self._error(f"{self.name} was not ready after {READY_TIMEOUT_S:.0f} s: {reason}")
            time.sleep(_POLL_S)

    def terminate(self) -> None:
        """Send SIGTERM if it runs; `stop` waits for the end."""
        if self._process.poll() is None:
            self._process.send_signal(SIGTERM)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """End the program by SIGTERM and, after `timeout_s`, by SIGKILL; return whether SIGTERM was enough."""
        self.terminate()
        return self.await_stop(timeout_s)

    def await_stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Wait for the end of a terminated program, as `stop` does."""
        try:
            self._process.wait(timeout_s)
        except BaseException as error:
            self._process.kill()  # also when interrupted: a second Ctrl-C must not leave the program behind
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return False
        return True

    def _ended(self) -> EmbeddedError:
        return self._error(f"{self.name} ended with status {self._process.returncode}")

    def _error(self, message: str) -> EmbeddedError:
        return EmbeddedError(f"{message}; see above") if self.log is None else with_log(f"{message}.", self.log)


class WorkerProgram(Program):
    """A worker process.

    Args:
        name, process, log: as for `Program`.
        metrics_port: where it serves /metrics, /healthz and /readyz.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, metrics_port: int) -> None:
        super().__init__(name, process, log)
        self.metrics_port = metrics_port

    def await_ready(self) -> None:
        """Wait until it owns its partitions, has restored their histories, and has reached Milvus and Kafka.

        Raises:
            EmbeddedError: it ended, or did not become ready in time.
        """
        self.await_http(self.metrics_port, "/readyz")

    def await_restored(self) -> None:
        """Wait until it owns its partitions and has restored their histories. It may be processing messages by then.

        The rest of the readiness, an answer of Kafka to the watchdog, takes some seconds more.

        Raises:
            EmbeddedError: it ended, or did not get so far in time.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            self.require_running()
            with suppress(OSError, HTTPException):
                _, body = http_get(self.metrics_port, "/readyz")
                if all(agent["restored"] for agent in json.loads(body)["agents"].values()):
                    return
            if time.monotonic() > deadline:
                raise self._error(f"{self.name} had not restored its histories after {READY_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)


def http_get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET request to this machine, without any proxy.

    Raises:
        OSError, HTTPException: no server answers, or it does not answer in HTTP.
    """
    connection = HTTPConnection(ports.HOST, port, timeout=_HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
