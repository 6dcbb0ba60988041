"""Worker processes, and a supervisor that restarts those that exit, as systemd or Kubernetes would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.instance import CHECKOUT
from tests.site import Site

#: Seconds between two checks of the processes.
_INTERVAL_S = 0.5
#: Seconds after SIGTERM until a worker is killed.
_GRACE_S = 30.0


@dataclass(frozen=True)
class Shutdown:
    """The exit of a worker that was stopped: its status, and the seconds from SIGTERM to its end."""

    status: int
    seconds: float


@dataclass
class _Member:
    process: subprocess.Popen[bytes]
    wanted: bool = True
    spoil: Callable[[Path], object] = lambda _: None


class Fleet:
    """The workers of a site, each with a data folder and a log file.

    Attributes:
        ends: exit statuses of workers that exited without being stopped, or were killed, in order.
        shutdowns: exits of workers that were stopped, in order.
    """

    def __init__(self, site: Site, environment: Mapping[str, str], extra: Sequence[str]) -> None:
        self._site = site
        self._environment = {**os.environ, **environment}
        self._extra = extra
        self._members: dict[str, _Member] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self.ends: list[int] = []
        self.shutdowns: list[Shutdown] = []
        self._supervisor.start()

    @property
    def names(self) -> list[str]:
        """Workers that were started and not stopped."""
        with self._lock:
            return [name for name, member in self._members.items() if member.wanted]

    def log(self, name: str) -> str:
        return (self._site.folder / f"{name}.log").read_text(errors="replace")

    def start(self, name: str) -> None:
        with self._lock:
            self._members[name] = _Member(self._spawn(name))

    def working(self) -> Collection[str]:
        """Return the workers that run and have been assigned partitions."""
        return self.reached("clicks: partitions")

    def reached(self, text: str) -> Collection[str]:
        """Return the workers that run and have logged a text since their last start."""
        with self._lock:
            members = dict(self._members)
        return {
            name
            for name, member in members.items()
            if member.wanted
            and member.process.poll() is None
            and text in self.log(name).rpartition(f"process {member.process.pid}:")[2]
        }

    def logged(self, text: str) -> int:
        """Return how often a text is in the logs of all workers."""
        return sum(self.log(name).count(text) for name in self.names)

    def pid(self, name: str) -> int:
        return self._members[name].process.pid

    def kill(self, name: str, spoil: Callable[[Path], object] = lambda _: None) -> None:
        """Send SIGKILL; the supervisor restarts the worker, after `spoil` was called with its data folder."""
        with self._lock:
            self._members[name].spoil = spoil
            self._members[name].process.kill()

    def stop(self, name: str) -> None:
        """Send SIGTERM and wait for the exit, without a restart; raise if the worker has to be killed."""
        with self._lock:
            member = self._members[name]
            member.wanted = False
        started = time.monotonic()
        member.process.send_signal(signal.SIGTERM)
        try:
            status = member.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            member.process.kill()
            raise
        self.shutdowns.append(Shutdown(status, time.monotonic() - started))

    def close(self) -> None:
        self._closing.set()
        self._supervisor.join()
        for member in self._members.values():
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.terminate()
        for member in self._members.values():
            try:
                member.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        data = f"worker.data_dir={self._site.folder / name}"
        command = self._site.command("tests.chaos.suspendable", "--set", data, *self._extra)
        with (self._site.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log, env=self._environment)
            log.write(f"process {process.pid}:\n".encode())
        return process

    def _supervise(self) -> None:
        while not self._closing.wait(_INTERVAL_S):
            with self._lock:
                for name, member in self._members.items():
                    status = member.process.poll()
                    if status is not None and member.wanted:
                        self.ends.append(status)
                        member.spoil(self._site.folder / name)
                        self._members[name] = _Member(self._spawn(name))


def wipe(data: Path) -> None:
    """Delete the data folder of a worker."""
    shutil.rmtree(data, ignore_errors=True)
