"""What benchmarks run on: embedded servers, started when the first benchmark needs one and removed at the end.

    with Stage(folder, "standalone", report=print) as stage:
        site = stage.site("clicks", artifact, {"batch.size": 256})
        with site.worker("clicks") as worker: …

Servers named by MINDSTREAM_KAFKA or MINDSTREAM_MILVUS are used instead, if set; topics and collections have names of
their own there and are deleted after each benchmark.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from confluent_kafka.admin import AdminClient
from filelock import FileLock, Timeout

from benchmarks.report import ROOT
from configs.loader import load_replay, load_worker
from configs.schema import ReplayConfig, WorkerConfig
from embedded.stack import Stack
from model.artifact import Artifact
from streams.errors import MindstreamError
from streams.milvus import MilvusIndex
from streams.topics import create_topics, topic_specs

MilvusKind = Literal["lite", "standalone"]

#: Seconds that a worker gets to own its partitions, and an index to hold all its items, on a busy machine.
PATIENCE = 120.0
#: Seconds that a worker gets to leave: its own limit is 5.
_LEAVE = 20.0
#: Seconds between two looks whether something has happened.
_POLL = 0.02


class BenchmarkError(Exception):
    """A benchmark could not be finished; the message says why."""


class Stage:
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

    def __enter__(self) -> Stage:
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

    @contextmanager
    def site(
        self, name: str, artifact: Artifact | None = None, settings: Mapping[str, object] | None = None
    ) -> Iterator[Site]:
        """Topics, and with an artifact a Milvus collection, for one benchmark; deleted at its end.

        Args:
            settings: configuration keys that differ from the shipped ones.
        """
        addresses: dict[str, object] = {"kafka.bootstrap_servers": self.kafka()}
        if artifact is not None:
            addresses |= {"milvus.uri": self.milvus_uri(), "model.artifact": artifact.path}
        site = Site(self, name, artifact, addresses | dict(settings or {}))
        site.create_topics()
        try:
            yield site
        finally:
            site.remove()

    def _clear(self) -> None:
        for stack in self._stacks.values():
            stack.down(wipe=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Site:
    """One benchmark's topics, collection and processes.

    Attributes:
        config, replay: settings of the worker and of the producers.
    """

    def __init__(self, stage: Stage, name: str, artifact: Artifact | None, settings: Mapping[str, object]) -> None:
        run = f"bench-{name}-{uuid.uuid4().hex[:8]}"
        topics = ("clicks", "items", "recommendations", "dead_letters")
        names = {f"topics.{topic}": f"{run}-{topic}" for topic in topics}
        names |= {"worker.group": run, "worker.metrics_port": "0"}
        self._stage = stage
        self._folder = stage.folder / run
        self._folder.mkdir(parents=True)
        self._artifact = artifact
        self._settings = [f"{key}={value}" for key, value in (names | dict(settings)).items()]
        shared = [s for s in self._settings if s.split(".")[0] in ("kafka", "topics")]
        self.config: WorkerConfig = load_worker(overrides=self._settings)
        self.replay: ReplayConfig = load_replay(overrides=shared)

    def create_topics(self) -> None:
        """All topics. Recommendations carry the time at which the broker stored them, not that of the producer."""
        by_broker = {"message.timestamp.type": "LogAppendTime"}
        specs = [
            dataclasses.replace(spec, config=spec.config | by_broker)
            if spec.name == self.config.topics.recommendations
            else spec
            for spec in topic_specs(self.config.topics, self.config.worker.group)
        ]
        create_topics(self.config.kafka, specs, self.config.topics.replication)

    def fill_index(self) -> None:
        """The artifact's items, written to Milvus directly and indexed, as they are some minutes after publishing."""
        artifact = self._artifact
        assert artifact is not None  # only benchmarks with an artifact have an index
        self._stage.report(f"Writing {len(artifact.item_ids):,} items into Milvus")
        index = MilvusIndex(self.config.milvus, artifact.model_version, artifact.dim, create=True)
        for begin in range(0, len(artifact.item_ids), 2000):
            part = slice(begin, begin + 2000)
            index.upsert(artifact.item_ids[part], np.asarray(artifact.item_vectors[part]))
        deadline = time.monotonic() + PATIENCE
        while index.describe().count < len(artifact.item_ids):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"Milvus does not show all items after {PATIENCE:.0f} s")
            time.sleep(_POLL)
        if self._stage.milvus == "standalone":  # milvus-lite indexes as it goes
            self._stage.report("Waiting for Milvus to index them")
            index.settle()
            while index.searchable_by_graph() < len(artifact.item_ids):
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"Milvus has not indexed all items after {PATIENCE:.0f} s")
                time.sleep(_POLL)
        index.close()

    @contextmanager
    def worker(self, agents: str) -> Iterator[Worker]:
        """A worker process that owns its partitions; ended with the block.

        Args:
            agents: "clicks" or "items".
        """
        self._stage.report(f"Starting a worker for {agents}")
        log = self._folder / f"worker-{agents}.log"
        sets = [*self._settings, f"worker.data_dir={self._folder / agents}"]
        command = [sys.executable, "-m", "streams", "worker", "--agents", agents]
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, *(argument for setting in sets for argument in ("--set", setting))],
                cwd=ROOT,
                stdout=file,
                stderr=file,
            )
        worker = Worker(process, log)
        try:
            worker.await_partitions()
            yield worker
        finally:
            worker.end()

    def remove(self) -> None:
        """Delete the topics and the collection, as far as the servers still answer."""
        with suppress(MindstreamError):
            if self._artifact is not None:
                version, dim = self._artifact.model_version, self._artifact.dim
                index = MilvusIndex(self.config.milvus, version, dim, create=False)
                index.drop()
                index.close()
        names = [spec.name for spec in topic_specs(self.config.topics, self.config.worker.group)]
        admin = AdminClient(self.config.kafka.client())
        for future in admin.delete_topics(names, operation_timeout=5, request_timeout=5).values():
            future.exception()  # waits; a topic that stays is no harm


class Worker:
    """A worker process under observation.

    Attributes:
        ready: when it was seen to own its partitions, in seconds since 1970.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.ready = 0.0

    def await_partitions(self) -> None:
        """Raises BenchmarkError when it ends, or owns no partitions in time."""
        deadline = time.monotonic() + PATIENCE
        while b"partitions [" not in self._log.read_bytes():
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the worker owns no partitions after {PATIENCE:.0f} s\n{self._tail()}")
            time.sleep(_POLL)
        self.ready = time.time()

    def check(self) -> None:
        """Raises BenchmarkError when it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(f"the worker ended with status {self._process.returncode}\n{self._tail()}")

    def end(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=_LEAVE)
        except BaseException as error:
            self._process.kill()  # a second Ctrl-C must not leave it behind
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
