"""The embedded stack: Kafka and Milvus of one instance folder, brought up and down as a whole.

    stack = Stack(Path(".mindstream/embedded"))
    addresses = stack.up(report=print)   # starts the servers that do not run yet
    stack.kafka.kill(); stack.kafka.start()   # single servers, in tests
    stack.down()

The rules:

1. A server's process is written to `state.json` as soon as it exists, before it is ready. Whenever a command is killed,
   the next `up` or `down` finds the processes that it left and ends them.
2. A lock on the folder: of two commands at the same time, the second one waits and then finds what the first one did.
3. If one server cannot be started, those that were started with it are stopped.
4. A server named by MINDSTREAM_KAFKA or MINDSTREAM_MILVUS is only checked; `down` never stops it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedded import external, process
from embedded.errors import CancelledError, EmbeddedError
from embedded.instance import CACHE, FOLDER, Instance, Reporter, silent
from embedded.kafka import Kafka
from embedded.milvus import Lite, Milvus
from embedded.server import Server
from embedded.standalone import Standalone

Flavour = Literal["lite", "standalone", "none"]

_MILVUS: dict[str, type[Milvus]] = {"lite": Lite, "standalone": Standalone}


@dataclass(frozen=True)
class Addresses:
    """Addresses of the servers; None = the stack does not have that server.

    Attributes:
        kafka: bootstrap servers, host:port.
        milvus: a URI, http://host:port.
    """

    kafka: str | None
    milvus: str | None

    def exports(self) -> dict[str, str]:
        """Return the environment variables that point the worker and all tools at this stack."""
        values = {"kafka": self.kafka, "milvus": self.milvus}
        return {external.VARIABLES[name]: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ServerStatus:
    """One server as `status` shows it.

    Attributes:
        name: "kafka" or "milvus".
        pid: process id; None unless this stack runs the server.
        address: of the running server, or the last one.
        state: "running", "starting" (or its start was interrupted), "not answering", "ended" (by itself: see `log`),
            "stopped", "external" or "unreachable" (external, too).
        flavour: "kafka", "lite", "standalone" or "external".
        log: its log file, None for an external server.
    """

    name: str
    pid: int | None
    address: str
    state: str
    flavour: str
    log: Path | None

    @property
    def serves(self) -> bool:
        return self.state in ("running", "external")


class Stack:
    """Kafka and Milvus of one folder. Creating the object starts nothing.

    Args:
        folder: for data, logs and state.
        milvus: which Milvus to start; None = the one that runs or ran last in this folder, "lite" the first time.
        kafka: whether to start Kafka.
        kafka_port, milvus_port: 0 = the last port if it is free, else any free one.
        cache: downloads, shared by all instances.
        environ: variables that may name external servers.
    """

    def __init__(
        self,
        folder: Path = FOLDER,
        milvus: Flavour | None = "lite",
        kafka_port: int = 0,
        milvus_port: int = 0,
        *,
        kafka: bool = True,
        cache: Path = CACHE,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.instance = Instance.in_folder(folder, cache)
        self._environ = environ
        self._wanted: dict[str, Server] = {}
        if kafka:
            self._wanted["kafka"] = Kafka(self.instance, kafka_port)
        self._keeps_last_flavour = milvus is None
        if milvus != "none":
            self._wanted["milvus"] = _MILVUS[milvus or "lite"](self.instance, milvus_port)

    @property
    def kafka(self) -> Server:
        """Kafka, to control it separately; raises `EmbeddedError` if it is external or not part of this stack."""
        return self._wanted_server("kafka")

    @property
    def milvus(self) -> Server:
        """Milvus, to control it separately; raises as `kafka` does."""
        return self._wanted_server("milvus")

    def up(self, report: Reporter = silent) -> Addresses:
        """Start the servers that do not run and return all addresses.

        Raises:
            EmbeddedError: something is missing or failed; nothing that this call started still runs.
        """
        with self.instance.lock(report):
            if self._keeps_last_flavour:
                self._choose_last_flavour()
            others = {name: self._external(name) for name in self._wanted}
            known = {name: other.require_reachable() for name, other in others.items() if other is not None}
            mine = [server for name, server in self._wanted.items() if name not in known]
            missing = [server for server in mine if not self._runs_already(server, report)]
            if missing:
                self.instance.require_disk()
                for server in missing:
                    server.check()
                self._stop_conflicting(missing, report)
                for server in missing:
                    server.require_port()
                self._start(missing, report)
            addresses = {**known, **{server.name: server.address for server in mine}}
        return Addresses(addresses.get("kafka"), addresses.get("milvus"))

    def status(self) -> list[ServerStatus]:
        """Return the servers of this folder and the external ones; none if nothing ever ran here."""
        found = []
        for name in external.VARIABLES:
            if (other := self._external(name)) is not None:
                state = "external" if other.reachable() else "unreachable"
                found.append(ServerStatus(name, None, other.address, state, "external", None))
            elif (server := self._recorded(name)) is not None:
                found.append(_status(server))
        return found

    def down(self, wipe: bool = False, report: Reporter = silent) -> None:
        """Stop every server of this folder, including those of other flavours; with `wipe`, delete the data."""
        if not self.instance.folder.exists():
            return
        with self.instance.lock(report):
            running = [server for name in external.VARIABLES if (server := self._recorded(name)) is not None]
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda server: server.stop(), running))
            self._end_leftovers(keep=[])
            if wipe:
                self.instance.wipe()

    def _choose_last_flavour(self) -> None:
        """Choose the flavour that ran last. Needs the lock: another command may have started one in the meantime."""
        last = self.instance.state.get("milvus")
        if last is not None:
            self._wanted["milvus"] = _MILVUS[last.flavour](self.instance, self._wanted["milvus"].requested_port)

    def _start(self, servers: list[Server], report: Reporter) -> None:
        """Start all at the same time; if one fails, or the user interrupts, stop the others."""
        cancel = threading.Event()
        try:
            with ThreadPoolExecutor(len(servers)) as pool:
                futures = [pool.submit(server.start, report, cancel) for server in servers]
                try:
                    wait(futures, return_when=FIRST_EXCEPTION)
                finally:
                    if not all(future.done() and future.exception() is None for future in futures):
                        cancel.set()
            errors = [error for future in futures if (error := future.exception()) is not None]
            if errors:
                # The others were only cancelled, because of the one that failed.
                raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])
        except BaseException:
            for server in servers:
                server.stop()
            raise

    def _runs_already(self, server: Server, report: Reporter) -> bool:
        """Return whether the server runs already; raise `EmbeddedError` if it runs on another port than requested."""
        if not server.healthy():
            return False
        if server.requested_port and server.entry is not None and server.entry.port != server.requested_port:
            raise EmbeddedError(
                f"{server.title} already runs at {server.address}, not on port {server.requested_port}. Leave "
                f"--{server.name}-port out to use it, or run `python -m embedded down` first."
            )
        report(f"{server.title} already runs at {server.address}")
        return True

    def _stop_conflicting(self, servers: list[Server], report: Reporter) -> None:
        """Stop another flavour of Milvus, servers that do not answer, and processes left by a crash."""
        for server in servers:
            other = self._recorded(server.name)
            if other is not None and other.pid is not None:
                why = "is stopped" if other.flavour != server.flavour else "does not answer and is restarted"
                report(f"{other.title} (process {other.pid}) {why}; its data is kept")
                other.stop()
        self._end_leftovers(keep=[entry.pid for entry in self.instance.state.read().values() if entry.alive])

    def _end_leftovers(self, keep: list[int]) -> None:
        """End the marked processes that are neither in `keep` nor children of one in it."""
        for identity in process.marked_processes(self.instance.folder):
            if not identity.ancestry() & set(keep):
                process.end(identity, timeout_s=0)

    def _wanted_server(self, name: str) -> Server:
        if (other := self._external(name)) is not None:
            raise EmbeddedError(f"{name} is an external server ({other.variable}) and cannot be controlled here.")
        if name not in self._wanted:
            raise EmbeddedError(f"This stack was created without {name}.")
        return self._wanted[name]

    def _external(self, name: str) -> external.ExternalServer | None:
        """Return the external server; None if the variable names the server of this folder (after `export`)."""
        other = external.from_environment(name, self._environ)
        recorded = self._recorded(name)
        return None if other is None or (recorded is not None and recorded.address == other.address) else other

    def _recorded(self, name: str) -> Server | None:
        """Return the server that ran last according to the state file."""
        entry = self.instance.state.get(name)
        if entry is None:
            return None
        wanted = self._wanted.get(name)
        if wanted is not None and wanted.flavour == entry.flavour:
            return wanted
        return Kafka(self.instance) if name == "kafka" else _MILVUS[entry.flavour](self.instance)


def _status(server: Server) -> ServerStatus:
    entry, pid = server.entry, server.pid
    if entry is None or entry.pid == 0:
        state = "stopped"
    elif pid is None:
        state = "ended"
    elif not entry.ready:
        state = "starting"
    else:
        state = "running" if server.healthy() else "not answering"
    return ServerStatus(server.name, pid, server.address or "", state, server.flavour, server.log)
