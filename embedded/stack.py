"""The embedded stack: Kafka and Milvus of one instance folder, brought up and down as a whole.

    stack = Stack(Path(".mindstream/embedded"))
    addresses = stack.up(report=print)   # starts what doesn't run, finds what does
    stack.kafka.kill(); stack.kafka.start()   # single servers, in tests
    stack.down()

The rules:

1. A server's process is written to `state.json` as soon as it exists, before it is ready. Whatever is killed when, the
   next `up` or `down` finds the remains and ends them.
2. A lock on the folder: of two commands at once, the second waits and then finds what the first one did.
3. If one server can't be started, those that were started with it are ended again.
4. A server named by MINDSTREAM_KAFKA or MINDSTREAM_MILVUS is only checked; `down` never touches it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from embedded import external, process
from embedded.errors import CancelledError, EmbeddedError
from embedded.kafka import Kafka
from embedded.milvus import Lite, Milvus
from embedded.server import Place, Report, Server, silent
from embedded.standalone import Standalone
from embedded.state import StateFile

Flavour = Literal["lite", "standalone", "none"]

CHECKOUT = Path(__file__).resolve().parent.parent
#: Where everything is kept unless told otherwise; ignored by git.
FOLDER = CHECKOUT / ".mindstream" / "embedded"
CACHE = CHECKOUT / ".mindstream" / "cache"

#: Bytes that must be free: room for the downloads (0.4 GB), Kafka's first segments and a demo's data.
DISK_NEEDED = 1 << 30
#: Seconds to wait for another command on the same folder: a first start with downloads takes minutes.
_LOCK_TIMEOUT = 900.0

_MILVUS: dict[str, type[Milvus]] = {"lite": Lite, "standalone": Standalone}


@dataclass(frozen=True)
class Addresses:
    """Where clients connect; None = this stack doesn't have that server.

    Attributes:
        kafka: bootstrap servers, host:port.
        milvus: a URI, http://host:port.
    """

    kafka: str | None
    milvus: str | None

    def exports(self) -> dict[str, str]:
        """Environment variables that point the worker and all tools at this stack."""
        values = {"kafka": self.kafka, "milvus": self.milvus}
        return {external.VARIABLES[name]: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ServerStatus:
    """One server as `status` shows it.

    Attributes:
        name: "kafka" or "milvus".
        pid: None unless a process of ours runs.
        address: where it serves or served last.
        state: "running", "starting" (or left behind half-way), "not answering", "ended" (by itself: see `log`),
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
    """Kafka and Milvus of one folder. Making one starts nothing.

    Args:
        folder: the instance: data, logs, state.
        milvus: which Milvus to start; None = the one that runs or ran last in this folder, at first the small one.
        kafka: whether to start Kafka.
        kafka_port, milvus_port: 0 = the port of the last time if it is free, else any free one.
        cache: downloads, shared by all instances.
        environ: where the addresses of external servers are looked up.
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
        folder = folder.resolve()
        self.place = Place(folder, cache.resolve(), StateFile(folder / "state.json"))
        self._environ = environ
        self._wanted: dict[str, Server] = {}
        if kafka:
            self._wanted["kafka"] = Kafka(self.place, kafka_port)
        self._as_last_time = milvus is None
        if milvus != "none":
            self._wanted["milvus"] = _MILVUS[milvus or "lite"](self.place, milvus_port)

    @property
    def kafka(self) -> Server:
        """Kafka, to be killed and started alone; `EmbeddedError` if it is external or not part of this stack."""
        return self._own("kafka")

    @property
    def milvus(self) -> Server:
        """Milvus, likewise."""
        return self._own("milvus")

    def up(self, report: Report = silent) -> Addresses:
        """Start what doesn't run and return all addresses; does nothing if everything runs.

        Raises:
            EmbeddedError: something is missing or failed; nothing that this call started is left running.
        """
        with self._lock(report):
            if self._as_last_time:
                self._keep_flavour()
            known = {name: other.require() for name in self._wanted if (other := self._external(name)) is not None}
            mine = [server for name, server in self._wanted.items() if name not in known]
            missing = [server for server in mine if not self._found(server, report)]
            if missing:
                self._require_disk()
                for server in missing:
                    server.check()
                self._clear(missing, report)
                for server in missing:
                    server.require_port()
                self._start(missing, report)
            addresses = {**known, **{server.name: server.address for server in mine}}
        return Addresses(addresses.get("kafka"), addresses.get("milvus"))

    def status(self) -> list[ServerStatus]:
        """What runs in this folder, and the external servers; empty if nothing ever ran here."""
        found = []
        for name in external.VARIABLES:
            if (other := self._external(name)) is not None:
                state = "external" if other.reachable() else "unreachable"
                found.append(ServerStatus(name, None, other.address, state, "external", None))
            elif (server := self._recorded(name)) is not None:
                found.append(_status(server))
        return found

    def down(self, wipe: bool = False, report: Report = silent) -> None:
        """End every process of this folder, whichever flavour and whoever started it; with `wipe`, delete the data."""
        if not self.place.folder.exists():
            return
        with self._lock(report):
            running = [server for name in external.VARIABLES if (server := self._recorded(name)) is not None]
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda server: server.stop(), running))
            self._end_leftovers(keep=[])
            if wipe:
                self._wipe()

    def _keep_flavour(self) -> None:
        """To be called under the lock: what was started while we waited for it counts, too."""
        last = self.place.state.get("milvus")
        if last is not None:
            self._wanted["milvus"] = _MILVUS[last.flavour](self.place, self._wanted["milvus"].told_port)

    def _start(self, servers: list[Server], report: Report) -> None:
        """Start all at once; if one fails, or the user gives up, end the others."""
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
                # The others were only cancelled because of the one that failed.
                raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])
        except BaseException:
            for server in servers:
                server.stop()
            raise

    def _found(self, server: Server, report: Report) -> bool:
        """Whether it runs already, on the port that was asked for."""
        if not server.healthy():
            return False
        if server.told_port and server.entry is not None and server.entry.port != server.told_port:
            raise EmbeddedError(
                f"{server.title} already runs at {server.address}, not on port {server.told_port}. Leave "
                f"--{server.name}-port out to use it, or run `python -m embedded down` first."
            )
        report(f"{server.title} runs already at {server.address}")
        return True

    def _clear(self, servers: list[Server], report: Report) -> None:
        """End what is in the way: another flavour of Milvus, servers that don't answer, remains of a crash."""
        for server in servers:
            other = self._recorded(server.name)
            if other is not None and other.pid is not None:
                why = "makes way" if other.flavour != server.flavour else "does not answer and is started again"
                report(f"{other.title} (process {other.pid}) {why}; its data is kept")
                other.stop()
        self._end_leftovers(keep=[entry.pid for entry in self.place.state.read().values() if entry.alive])

    def _end_leftovers(self, keep: list[int]) -> None:
        """End the marked processes that aren't in `keep`, nor children of one in it."""
        for identity in process.leftovers(self.place.folder):
            if not identity.lineage() & set(keep):
                process.end(identity, grace=0)

    def _require_disk(self) -> None:
        for folder in (self.place.folder, self.place.cache):
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < DISK_NEEDED:
                raise EmbeddedError(
                    f"Only {free / 1e9:.1f} GB are free on the disk of {folder}, not {DISK_NEEDED / 1e9:.1f} GB. "
                    "Make room, or give another folder with --dir."
                )

    def _wipe(self) -> None:
        """Delete what is ours and nothing else: --dir may name a folder with other things in it."""
        for name in ("kafka", "milvus", "logs"):
            shutil.rmtree(self.place.folder / name, ignore_errors=True)
        for file in self.place.folder.glob("state.*"):
            file.unlink(missing_ok=True)

    def _own(self, name: str) -> Server:
        if (other := self._external(name)) is not None:
            raise EmbeddedError(f"{name} is somebody else's server ({other.variable}): it can't be controlled here.")
        if name not in self._wanted:
            raise EmbeddedError(f"This stack was made without {name}.")
        return self._wanted[name]

    def _external(self, name: str) -> external.External | None:
        """The external server, unless the variable just names the one of this folder (after `export`)."""
        other = external.from_environment(name, self._environ)
        recorded = self._recorded(name)
        return None if other is None or (recorded is not None and recorded.address == other.address) else other

    def _recorded(self, name: str) -> Server | None:
        """The server that the state file tells of, in the flavour that ran last."""
        entry = self.place.state.get(name)
        if entry is None:
            return None
        wanted = self._wanted.get(name)
        if wanted is not None and wanted.flavour == entry.flavour:
            return wanted
        return Kafka(self.place) if name == "kafka" else _MILVUS[entry.flavour](self.place)

    @contextmanager
    def _lock(self, report: Report) -> Iterator[None]:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.place.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report("Waiting for another up or down of this folder …")
            try:
                lock.acquire(timeout=_LOCK_TIMEOUT)
            except Timeout:
                raise EmbeddedError(
                    f"Another up or down has been working on {self.place.folder} for {_LOCK_TIMEOUT:.0f} s: end it."
                ) from None
        try:
            yield
        finally:
            lock.release()


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
