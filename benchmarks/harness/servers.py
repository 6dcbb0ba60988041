"""Servers for benchmarks: embedded ones, started when the first benchmark needs them and removed at the end.

    with BenchmarkServers(folder, "standalone", report=print) as servers, servers.index(artifact):
        with benchmark_site(servers, "latency", artifact, {"batch.size": 256}) as site:
            with site.worker("--agents", "clicks") as worker:
                site.send_clicks(clicks, rate=100.0)
                site.await_commits(worker)

If MINDSTREAM_KAFKA or MINDSTREAM_MILVUS is set, that server is used instead; topics and collections have names of their
own there and are deleted after each benchmark.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.usage import cpu_seconds, memory_bytes
from configs.cli import progress_bar
from configs.errors import MindstreamError
from configs.loader import load_worker
from embedded.stack import Stack
from model.artifact import Artifact
from streams.milvus.index import MilvusIndex

MilvusKind = Literal["lite", "standalone"]

#: Seconds without progress after which a benchmark fails, on a busy machine.
STALL_TIMEOUT_S = 120.0
#: Seconds between two checks of a server.
POLL_S = 0.25
#: Seconds that Milvus gets to index all items and become idle. A graph of 368,000 items takes two minutes.
_INDEX_TIMEOUT_S = 600.0
#: Milvus is idle when it uses less than `_IDLE_CORES`, measured over `_CPU_WINDOW_S`, for `_IDLE_S`.
_IDLE_CORES, _CPU_WINDOW_S, _IDLE_S = 0.2, 5.0, 60.0


class BenchmarkServers:
    """Servers and a folder for one run of benchmarks; everything is removed at the end of the `with` block.

    Args:
        folder: for servers, models and logs; emptied at the start and at the end. Two runs at the same time would
            disturb each other: the second one is refused.
        milvus: which Milvus to start.
        report: called with a line for each step.
    """

    def __init__(self, folder: Path, milvus: MilvusKind, report: Callable[[str], None]) -> None:
        self.milvus = milvus
        self.report = report
        self.folder = folder / "data"
        self._lock = FileLock(folder / "lock")
        self._stacks = {
            "kafka": Stack(folder / "kafka", milvus="none"),
            "milvus": Stack(folder / "milvus", milvus=milvus, kafka=False),
        }

    def __enter__(self) -> BenchmarkServers:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BenchmarkError("Another run of the benchmarks uses this folder; wait until it ends.") from None
        self._clear()  # a killed run may have left files
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._clear()
        finally:
            self._lock.release()

    def kafka(self) -> str:
        """Return the bootstrap servers of the broker; start it unless it runs."""
        address = self._stacks["kafka"].up(report=self.report).kafka
        assert address is not None  # this stack has Kafka
        return address

    def milvus_uri(self) -> str:
        """Return the URI of Milvus; start it unless it runs."""
        address = self._stacks["milvus"].up(report=self.report).milvus
        assert address is not None  # this stack has Milvus
        return address

    def fresh_milvus(self) -> None:
        """Remove a Milvus that was started here, with its data; the next use starts a new one."""
        self._stacks["milvus"].down(wipe=True)

    def server_cpu(self) -> dict[str, float]:
        """Return server → CPU seconds that it has used so far, children included; only servers started here."""
        return {name: cpu_seconds(pid) for name, pid in self._pids().items()}

    def server_memory(self) -> dict[str, int]:
        """Return server → bytes in memory now, children included; only servers started here."""
        return {name: memory_bytes(pid) for name, pid in self._pids().items()}

    def _pids(self) -> dict[str, int]:
        """Return server → process id, of the running servers that were started here."""
        entries = {name: stack.instance.state.get(name) for name, stack in self._stacks.items()}
        return {name.capitalize(): entry.pid for name, entry in entries.items() if entry is not None and entry.alive}

    @contextmanager
    def index(self, artifact: Artifact, kind: type[MilvusIndex] = MilvusIndex) -> Iterator[None]:
        """Write the artifact's items into Milvus and index them; drop the collection at the end of the block."""
        config = load_worker(overrides=[f"milvus.uri={self.milvus_uri()}", "milvus.timeout=60"])
        index = kind(config.milvus, artifact.model_version, artifact.dim, create=True)
        try:
            self._fill(index, artifact)
            yield
        finally:
            with suppress(MindstreamError):
                index.drop()
            index.close()

    def _fill(self, index: MilvusIndex, artifact: Artifact) -> None:
        N = len(artifact.item_ids)
        with progress_bar(N, "items into Milvus") as show:
            for begin in range(0, N, 2000):
                part = slice(begin, begin + 2000)
                index.upsert(artifact.item_ids[part], np.asarray(artifact.item_vectors[part]))
                show(min(N, begin + 2000))
        deadline = time.monotonic() + _INDEX_TIMEOUT_S
        while index.describe().count < N:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"Milvus does not show all items after {_INDEX_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
        if self.milvus == "standalone":  # milvus-lite indexes as it goes
            self.report("Waiting for Milvus to index them")
            index.seal()
            while index.indexed_count() < N:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"Milvus has not indexed all items after {_INDEX_TIMEOUT_S:.0f} s")
                time.sleep(POLL_S)
            self._await_idle(deadline)

    def _await_idle(self, deadline: float) -> None:
        """Wait until Milvus is idle: it compacts for minutes after a bulk load, and measurements would include that."""
        self.report("Waiting until Milvus is idle")
        busy = time.monotonic()
        while time.monotonic() - busy < _IDLE_S:
            before = self.server_cpu().get("Milvus")
            if before is None:
                return  # not started here: its CPU time is unknown
            time.sleep(_CPU_WINDOW_S)
            if self.server_cpu()["Milvus"] - before > _IDLE_CORES * _CPU_WINDOW_S:
                busy = time.monotonic()
            if busy > deadline:
                raise BenchmarkError(f"Milvus is not idle after {_INDEX_TIMEOUT_S:.0f} s")

    def _clear(self) -> None:
        for stack in self._stacks.values():
            stack.down(wipe=True)
        shutil.rmtree(self.folder, ignore_errors=True)
