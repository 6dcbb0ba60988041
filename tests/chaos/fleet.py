"""Worker processes under a supervisor that restarts what ends by itself, as systemd or Kubernetes would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.site import ROOT, Site

#: Seconds until an ended process is started again.
_RESTART = 0.5
#: Seconds that a worker gets to leave in good order.
_GRACE = 30.0


@dataclass(frozen=True)
class Leaving:
    """How a worker left that was told to: its exit status, and the seconds from SIGTERM to its end."""

    status: int
    seconds: float


@dataclass
class _Member:
    process: subprocess.Popen[bytes]
    wanted: bool = True
    wipe: bool = False


class Fleet:
    """The workers of a site, each with a folder of its own and a log file.

    Attributes:
        ends: exit statuses of processes that ended by themselves or were killed, in order.
        leavings: of workers that were told to go, in order.
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
        self.leavings: list[Leaving] = []
        self._supervisor.start()

    @property
    def names(self) -> list[str]:
        """Workers that are wanted."""
        with self._lock:
            return [name for name, member in self._members.items() if member.wanted]

    def log(self, name: str) -> str:
        return (self._site.folder / f"{name}.log").read_text(errors="replace")

    def start(self, name: str) -> None:
        with self._lock:
            self._members[name] = _Member(self._spawn(name))

    def working(self) -> bool:
        """Whether every wanted process runs and has got its partitions."""
        with self._lock:
            members = dict(self._members)
        return all(
            member.process.poll() is None
            and "clicks: partitions" in self.log(name).rpartition(f"process {member.process.pid}:")[2]
            for name, member in members.items()
            if member.wanted
        )

    def pid(self, name: str) -> int:
        return self._members[name].process.pid

    def kill(self, name: str, *, wipe: bool = False) -> None:
        """SIGKILL; the supervisor starts it again, with `wipe` after its local state was deleted."""
        with self._lock:
            self._members[name].wipe = wipe
            self._members[name].process.kill()

    def retire(self, name: str) -> None:
        """SIGTERM, no restart. Returns when it has left; raises if it does not."""
        with self._lock:
            member = self._members[name]
            member.wanted = False
        started = time.monotonic()
        member.process.send_signal(signal.SIGTERM)
        try:
            status = member.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            member.process.kill()
            raise
        self.leavings.append(Leaving(status, time.monotonic() - started))

    def close(self) -> None:
        self._closing.set()
        self._supervisor.join()
        for member in self._members.values():
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.terminate()
        for member in self._members.values():
            try:
                member.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        data = f"worker.data_dir={self._site.folder / name}"
        command = self._site.command("tests.chaos.worker", "--set", data, *self._extra)
        with (self._site.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=self._environment)
            log.write(f"process {process.pid}:\n".encode())
        return process

    def _supervise(self) -> None:
        while not self._closing.wait(_RESTART):
            with self._lock:
                for name, member in self._members.items():
                    status = member.process.poll()
                    if status is not None and member.wanted:
                        self.ends.append(status)
                        if member.wipe:
                            shutil.rmtree(self._site.folder / name, ignore_errors=True)
                        self._members[name] = _Member(self._spawn(name))
