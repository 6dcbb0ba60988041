"""The base of the embedded servers: how they are started, checked, stopped and killed."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from embedded import ports, process
from embedded.errors import CancelledError, with_log
from embedded.instance import Instance, Reporter, silent
from embedded.state import Entry

#: Seconds between two checks of a server that is starting.
_POLL_S = 0.1


@dataclass(frozen=True)
class Launch:
    """Command, working folder and environment of a server's process."""

    command: Sequence[str | Path]
    cwd: Path
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))


class Server(ABC):
    """One server of a stack.

    The methods take no lock: `Stack` does. A test that has a stack of its own may stop, kill and start single servers,
    which keep their port and their data.

    Args:
        instance: folders and state.
        port: 0 = the last port if it is free, else any free one.
    """

    #: "kafka" or "milvus": its key in the state file.
    name: ClassVar[str]
    #: Which program serves.
    flavour: ClassVar[str]
    #: Name in messages.
    title: ClassVar[str]
    #: Seconds after which a start counts as failed; enough for a slow, busy machine.
    start_timeout_s: ClassVar[float] = 120.0
    #: Seconds between SIGTERM and SIGKILL.
    stop_timeout_s: ClassVar[float] = 10.0

    def __init__(self, instance: Instance, port: int = 0) -> None:
        self.instance = instance
        self.requested_port = port
        self.log = instance.folder / "logs" / f"{self.log_name}.log"

    # Implemented by subclasses.

    @property
    @abstractmethod
    def home(self) -> Path:
        """Folder of this server's data."""

    @abstractmethod
    def check(self) -> None:
        """Raise `EmbeddedError` if this machine cannot run it."""

    @abstractmethod
    def install(self, report: Reporter) -> None:
        """Download the program into the cache unless it is there; may take minutes."""

    @abstractmethod
    def launch(self, port: int, report: Reporter) -> Launch:
        """Write the settings for `port` and return how to start the process."""

    @abstractmethod
    def probe(self, port: int) -> None:
        """Write something, read it back, and delete it. Any exception means that the server is not ready."""

    @abstractmethod
    def ping(self, port: int) -> None:
        """Send a short request that writes nothing. Any exception means that the server does not answer."""

    @property
    def log_name(self) -> str:
        return self.name

    def uri(self, port: int) -> str:
        """Return the address for clients."""
        return f"{ports.HOST}:{port}"

    # State.

    @property
    def entry(self) -> Entry | None:
        """Entry in the state file; None if this flavour of the server never ran."""
        entry = self.instance.state.get(self.name)
        return entry if entry is not None and entry.flavour == self.flavour else None

    @property
    def pid(self) -> int | None:
        """Process id; None if it does not run."""
        entry = self.entry
        return entry.pid if entry is not None and entry.alive else None

    @property
    def address(self) -> str | None:
        """Address for clients, now or after the next `start`; None if it never ran."""
        entry = self.entry
        return self.uri(entry.port) if entry is not None else None

    def healthy(self) -> bool:
        """Return whether it runs, has been ready, and answers."""
        entry = self.entry
        if entry is None or not entry.alive or not entry.ready:
            return False
        try:
            self.ping(entry.port)
        except Exception:  # noqa: BLE001 - clients raise many types
            return False
        return True

    # Actions.

    def start(self, report: Reporter = silent, cancel: threading.Event | None = None) -> str:
        """Start the process unless it runs, wait until a write can be read back, and return the address.

        Raises:
            EmbeddedError: it did not start; none of its processes still runs.
        """
        entry = self.entry
        if entry is not None and entry.alive and entry.ready:
            return self.uri(entry.port)
        self.stop()  # an interrupted start may have left a process that never became ready
        self.install(report)
        port = self._choose_port()
        launch = self.launch(port, report)
        report(f"Starting {self.title} …")
        # The process exists before its entry in the state file; if we are killed in between, its mark identifies it.
        environ = process.with_mark(launch.environ, self.instance.folder)
        identity = process.spawn(launch.command, environ, launch.cwd, self.log)
        started = Entry(self.flavour, port, identity.pid, identity.created)
        self.instance.state.put(self.name, started)
        try:
            self._wait_until_ready(identity, port, cancel or threading.Event())
        except BaseException:
            self.kill()
            self.instance.state.put(self.name, started.stopped())
            raise
        self.instance.state.put(self.name, replace(started, ready=True))
        report(f"{self.title} is ready at {self.uri(port)}")
        return self.uri(port)

    def stop(self) -> None:
        """End it by SIGTERM, and by SIGKILL after `stop_timeout_s`. Data and port are kept."""
        self._end(self.stop_timeout_s)
        if (entry := self.entry) is not None:
            self.instance.state.put(self.name, entry.stopped())

    def kill(self) -> None:
        """End it by SIGKILL, like a power cut: `start` restarts it on the same port with the same data."""
        self._end(timeout_s=0)

    def _end(self, timeout_s: float) -> None:
        entry = self.entry
        if entry is not None and entry.identity is not None:
            process.end(entry.identity, timeout_s)

    def require_port(self) -> None:
        """Raise `EmbeddedError` if a port was requested and is taken."""
        if self.requested_port:
            ports.require_free(self.requested_port, self.title, f"--{self.name}-port")

    def _choose_port(self) -> int:
        self.require_port()
        # Also the last port of another flavour, so that exported addresses stay valid.
        last = self.instance.state.get(self.name)
        if self.requested_port or last is None or not ports.is_free(last.port):
            return self.requested_port or ports.pick(1)[0]
        return last.port

    def _wait_until_ready(self, identity: process.Identity, port: int, cancel: threading.Event) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        reason = "it does not listen on its port"
        while time.monotonic() < deadline:
            if cancel.is_set():
                raise CancelledError(f"The start of {self.title} was cancelled.")
            if not identity.alive:
                raise with_log(f"{self.title} ended while it started.", self.log)
            # Another process may have taken the port since: check which process listens before talking to it.
            if ports.listens(identity.pid, port):
                try:
                    return self.probe(port)
                except Exception as error:  # noqa: BLE001 - kept as the reason of the failure below
                    reason = str(error)
            cancel.wait(_POLL_S)
        raise with_log(f"{self.title} was not ready after {self.start_timeout_s:.0f} s: {reason}.", self.log)
