"""What benchmarks run on: embedded servers, started when the first benchmark needs one and removed at the end.

    with BenchmarkServers(folder, "standalone", report=print) as stage, stage.index(artifact):
        with stage.site("latency", artifact, {"batch.size": 256}) as site, site.worker("clicks") as worker:
            site.send(clicks, rate=100.0)
            site.await_answers(worker)

Servers named by MINDSTREAM_KAFKA or MINDSTREAM_MILVUS are used instead, if set; topics and collections have names of
their own there and are deleted after each benchmark.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.process import cpu_seconds, family
from configs.cli import progress_bar
from configs.errors import MindstreamError
from configs.loader import load_worker
from embedded.stack import Stack
from model.artifact import Artifact
from streams.milvus.index import MilvusIndex

MilvusKind = Literal["lite", "standalone"]

#: Seconds that answers may stand still, and an index may take to hold all its items, on a busy machine.
PATIENCE = 120.0
#: Seconds that Kafka gets to list topics at the end.
LEAVE = 20.0
#: Seconds between two looks whether something has happened on a server.
ASK = 0.25
#: Seconds for which a bulk load of the index may go without progress. A graph of 368,000 items takes two minutes.
_BUILD = 600.0
#: Milvus is at rest when it uses less than so many cores, measured over so many seconds, for so many seconds.
_RESTING, _WATCHED, _REST = 0.2, 5.0, 60.0


class BenchmarkServers:
    """Servers and a folder for one run of benchmarks; everything is removed when it is left, however that happens.

    Args:
        folder: servers, models and logs; emptied at the start and at the end. Two runs at once would disturb each
            other: the second is refused.
        milvus: which Milvus to start.
        report: is told every step.
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
            raise BenchmarkError("Another run of the benchmarks is at work; wait for its end.") from None
        self._clear()  # what a killed run may have left
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._clear()
        finally:
            self._lock.release()

    def kafka(self) -> str:
        """Bootstrap servers of the broker, started now unless it runs."""
        address = self._stacks["kafka"].up(report=self.report).kafka
        assert address is not None  # this stack has Kafka
        return address

    def milvus_uri(self) -> str:
        """URI of Milvus, started now unless it runs."""
        address = self._stacks["milvus"].up(report=self.report).milvus
        assert address is not None  # this stack has Milvus
        return address

    def fresh_milvus(self) -> None:
        """End a Milvus that was started here, with all that it holds and remembers; the next use starts another one."""
        self._stacks["milvus"].down(wipe=True)

    def server_cpu(self) -> dict[str, float]:
        """Server → CPU seconds that it has used so far, children included; only servers started here."""
        used = {}
        for name, stack in self._stacks.items():
            entry = stack.place.state.get(name)
            if entry is not None and entry.alive:
                used["Kafka" if name == "kafka" else "Milvus"] = cpu_seconds(entry.pid)
        return used

    def server_memory(self) -> dict[str, int]:
        """Server → bytes in memory now, children included; only servers started here."""
        used = {}
        for name, stack in self._stacks.items():
            entry = stack.place.state.get(name)
            if entry is not None and entry.alive:
                used["Kafka" if name == "kafka" else "Milvus"] = sum(
                    process.memory_info().rss for process in family(entry.pid)
                )
        return used

    @contextmanager
    def index(self, artifact: Artifact, kind: type[MilvusIndex] = MilvusIndex) -> Iterator[None]:
        """The artifact's items in Milvus, written directly and indexed, as they are some minutes after publishing."""
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
        deadline = time.monotonic() + _BUILD
        while index.describe().count < N:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"Milvus does not show all items after {_BUILD:.0f} s")
            time.sleep(ASK)
        if self.milvus == "standalone":  # milvus-lite indexes as it goes
            self.report("Waiting for Milvus to index them")
            index.seal()
            while index.indexed_count() < N:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"Milvus has not indexed all items after {_BUILD:.0f} s")
                time.sleep(ASK)
            self._await_rest(deadline)

    def _await_rest(self, deadline: float) -> None:
        """Milvus goes on compacting for minutes after it has been filled; nothing is measured meanwhile."""
        self.report("Waiting for Milvus to come to rest")
        busy = time.monotonic()
        while time.monotonic() - busy < _REST:
            before = self.server_cpu().get("Milvus")
            if before is None:
                return  # a server elsewhere, which cannot be watched
            time.sleep(_WATCHED)
            if self.server_cpu()["Milvus"] - before > _RESTING * _WATCHED:
                busy = time.monotonic()
            if busy > deadline:
                raise BenchmarkError(f"Milvus has not come to rest after {_BUILD:.0f} s")

    @contextmanager
    def site(
        self, name: str, artifact: Artifact | None = None, settings: Mapping[str, object] | None = None
    ) -> Iterator[Any]:
        """Topics for one benchmark; deleted at its end.

        Args:
            artifact: what a worker here encodes with; its items are in the index (`index`).
            settings: configuration keys that differ from the shipped ones.
        """
        addresses: dict[str, object] = {"kafka.bootstrap_servers": self.kafka()}
        if artifact is not None:
            addresses |= {"milvus.uri": self.milvus_uri(), "model.artifact": artifact.path}
        from benchmarks.harness.site import BenchmarkSite

        site = BenchmarkSite(self, name, addresses | dict(settings or {}))
        site.create_topics()
        try:
            yield site
        finally:
            site.remove()

    def _clear(self) -> None:
        for stack in self._stacks.values():
            stack.down(wipe=True)
        shutil.rmtree(self.folder, ignore_errors=True)
