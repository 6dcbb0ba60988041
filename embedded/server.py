"""One embedded server: how it is started, checked, stopped and killed. What differs is in its subclasses."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from embedded import ports, process
from embedded.errors import CancelledError, with_log
from embedded.state import Entry, StateFile

Report = Callable[[str], None]

#: Seconds between two looks at a server that is starting.
_POLL = 0.1


def silent(_line: str) -> None:
    """A `Report` for callers who don't want to know."""


@dataclass(frozen=True)
class Place:
    """Where a stack lives.

    Attributes:
        folder: the instance: data, logs and state of its servers.
        cache: downloads, shared by all instances.
        state: the instance's state file.
    """

    folder: Path
    cache: Path
    state: StateFile


@dataclass(frozen=True)
class Launch:
    """How to start a server's process: command, environment, and the folder that it runs in."""

    command: Sequence[str | Path]
    cwd: Path
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))


class Server(ABC):
    """One server of a stack.

    `Stack` takes the lock and decides; the methods here just do it, so a test that owns its stack may kill, stop and
    start single servers, which keep their port and their data.
    """

    #: "kafka" or "milvus": its key in the state file.
    name: ClassVar[str]
    #: Which program serves.
    flavour: ClassVar[str]
    #: Name for people.
    title: ClassVar[str]
    #: Seconds that a start may take on a slow, busy machine before it counts as failed.
    start_limit: ClassVar[float] = 120.0
    #: Seconds between SIGTERM and SIGKILL.
    grace: ClassVar[float] = 10.0

    def __init__(self, place: Place, port: int = 0) -> None:
        self.place = place
        self.told_port = port
        self.log = place.folder / "logs" / f"{self.log_name}.log"

    # What a subclass says.

    @property
    @abstractmethod
    def home(self) -> Path:
        """Folder of this server's data."""

    @abstractmethod
    def check(self) -> None:
        """Raise `EmbeddedError` if this machine can't run it at all."""

    @abstractmethod
    def install(self, report: Report) -> None:
        """Bring the program into the cache unless it is there; may take minutes."""

    @abstractmethod
    def launch(self, port: int, report: Report) -> Launch:
        """Write the settings for `port` and say how to start the process."""

    @abstractmethod
    def probe(self, port: int) -> None:
        """Write something, read it back, tidy up. Any exception means: not ready yet."""

    @abstractmethod
    def ping(self, port: int) -> None:
        """Ask for an answer, quickly and without writing. Any exception means: not well."""

    @property
    def log_name(self) -> str:
        return self.name

    def uri(self, port: int) -> str:
        """The address as clients want it."""
        return f"{ports.HOST}:{port}"

    # What everybody may ask.

    @property
    def entry(self) -> Entry | None:
        """The state of this server, None if this flavour of it never ran."""
        entry = self.place.state.get(self.name)
        return entry if entry is not None and entry.flavour == self.flavour else None

    @property
    def pid(self) -> int | None:
        """Number of the running process, None if it doesn't run."""
        entry = self.entry
        return entry.pid if entry is not None and entry.alive else None

    @property
    def address(self) -> str | None:
        """Where it serves, or would serve again after `start`; None if it never ran."""
        entry = self.entry
        return self.uri(entry.port) if entry is not None else None

    def healthy(self) -> bool:
        """Whether it runs, became ready once and answers now."""
        entry = self.entry
        if entry is None or not entry.alive or not entry.ready:
            return False
        try:
            self.ping(entry.port)
        except Exception:  # noqa: BLE001 - whatever a client raises, the answer is no
            return False
        return True

    # What it does.

    def start(self, report: Report = silent, cancel: threading.Event | None = None) -> str:
        """Start the process unless it runs, wait until a write can be read back, and return the address.

        Raises:
            EmbeddedError: it did not start; nothing of it is left running.
        """
        entry = self.entry
        if entry is not None and entry.alive and entry.ready:
            return self.uri(entry.port)
        self.stop()  # a crash half-way may have left a process that never became ready
        self.install(report)
        port = self._choose_port()
        launch = self.launch(port, report)
        report(f"Starting {self.title} …")
        # The process exists before anything is written down; if we are killed in between, its mark gives it away.
        environ = process.marked(launch.environ, self.place.folder)
        identity = process.spawn(launch.command, environ, launch.cwd, self.log)
        started = Entry(self.flavour, port, identity.pid, identity.created)
        self.place.state.put(self.name, started)
        try:
            self._wait_until_ready(identity, port, cancel or threading.Event())
        except BaseException:
            self.kill()
            self.place.state.put(self.name, started.stopped())
            raise
        self.place.state.put(self.name, replace(started, ready=True))
        report(f"{self.title} is ready at {self.uri(port)}")
        return self.uri(port)

    def stop(self) -> None:
        """End it in good order, by force after `grace` seconds. Data and port are kept."""
        self._end(self.grace)
        if (entry := self.entry) is not None:
            self.place.state.put(self.name, entry.stopped())

    def kill(self) -> None:
        """SIGKILL, as a power cut would: `start` brings it back on the same port with the same data."""
        self._end(grace=0)

    def _end(self, grace: float) -> None:
        entry = self.entry
        if entry is not None and entry.identity is not None:
            process.end(entry.identity, grace)

    def require_port(self) -> None:
        """Raise `EmbeddedError` if a port was asked for and is taken."""
        if self.told_port:
            ports.require_free(self.told_port, self.title, f"--{self.name}-port")

    def _choose_port(self) -> int:
        self.require_port()
        # Also that of another flavour: what people exported stays true.
        last = self.place.state.get(self.name)
        if self.told_port or last is None or not ports.is_free(last.port):
            return self.told_port or ports.pick(1)[0]
        return last.port

    def _wait_until_ready(self, identity: process.Identity, port: int, cancel: threading.Event) -> None:
        deadline = time.monotonic() + self.start_limit
        reason = "it does not listen on its port"
        while time.monotonic() < deadline:
            if cancel.is_set():
                raise CancelledError(f"The start of {self.title} was given up.")
            if not identity.alive:
                raise with_log(f"{self.title} ended while it started.", self.log)
            # That it is this process that listens proves that we don't talk to a stranger on the same port.
            if ports.listens(identity.pid, port):
                try:
                    return self.probe(port)
                except Exception as error:  # noqa: BLE001 - kept as the reason of the failure below
                    reason = str(error)
            cancel.wait(_POLL)
        raise with_log(f"{self.title} was not ready after {self.start_limit:.0f} s: {reason}.", self.log)
