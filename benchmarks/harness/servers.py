"""What benchmarks run on: embedded servers, started when the first benchmark needs one and removed at the end.

    with Stage(folder, "standalone", report=print) as stage, stage.index(artifact):
        with stage.site("latency", artifact, {"batch.size": 256}) as site, site.worker("clicks") as worker:
            site.send(clicks, rate=100.0)
            site.await_answers(worker)

Servers named by MINDSTREAM_KAFKA or MINDSTREAM_MILVUS are used instead, if set; topics and collections have names of
their own there and are deleted after each benchmark.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from filelock import FileLock, Timeout

from benchmarks.harness.data import Traffic
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.process import Worker, cpu_seconds, family
from benchmarks.harness.report import ROOT
from configs.loader import load_replay, load_worker
from configs.schema import ReplayConfig, WorkerConfig
from embedded.ports import pick
from embedded.stack import Stack
from model.artifact import Artifact
from producers.cli import progress_bar
from producers.click_log import ClickLog
from producers.replay import clicks_sender, replay
from streams.errors import MindstreamError
from streams.history import History
from streams.kafka.producer import KafkaOutbox
from streams.kafka.topics import changelog_topic, create_topics, topic_specs
from streams.messages.fields import user_key
from streams.milvus.index import MilvusIndex
from streams.ports import Output
from streams.worker.watchdog import KafkaLag

MilvusKind = Literal["lite", "standalone"]

#: Seconds that answers may stand still, and an index may take to hold all its items, on a busy machine.
PATIENCE = 120.0
#: Seconds that Kafka gets to list topics at the end.
_LEAVE = 20.0
#: Seconds between two looks whether something has happened on a server.
_ASK = 0.25
#: Seconds for which a bulk load of the index may go without progress. A graph of 368,000 items takes two minutes.
_BUILD = 600.0
#: Milvus is at rest when it uses less than so many cores, measured over so many seconds, for so many seconds.
_RESTING, _WATCHED, _REST = 0.2, 5.0, 60.0
#: Histories sent at a time.
_SENT = 20_000


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
            time.sleep(_ASK)
        if self.milvus == "standalone":  # milvus-lite indexes as it goes
            self.report("Waiting for Milvus to index them")
            index.settle()
            while index.searchable_by_graph() < N:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"Milvus has not indexed all items after {_BUILD:.0f} s")
                time.sleep(_ASK)
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
    ) -> Iterator[Site]:
        """Topics for one benchmark; deleted at its end.

        Args:
            artifact: what a worker here encodes with; its items are in the index (`index`).
            settings: configuration keys that differ from the shipped ones.
        """
        addresses: dict[str, object] = {"kafka.bootstrap_servers": self.kafka()}
        if artifact is not None:
            addresses |= {"milvus.uri": self.milvus_uri(), "model.artifact": artifact.path}
        site = Site(self, name, addresses | dict(settings or {}))
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
    """One benchmark's topics and processes.

    Attributes:
        config, replay: settings of the worker and of the producers.
    """

    def __init__(self, stage: Stage, name: str, settings: Mapping[str, object]) -> None:
        run = f"bench-{name}-{uuid.uuid4().hex[:8]}"
        topics = ("clicks", "items", "recommendations", "dead_letters")
        names = {f"topics.{topic}": f"{run}-{topic}" for topic in topics}
        names |= {"worker.group": run}
        self._run = run
        self._stage = stage
        self._folder = stage.folder / run
        self._folder.mkdir(parents=True)
        self._settings = [f"{key}={value}" for key, value in (names | dict(settings)).items()]
        shared = [s for s in self._settings if s.split(".")[0] in ("kafka", "topics")]
        self.config: WorkerConfig = load_worker(overrides=self._settings)
        self.replay: ReplayConfig = load_replay(overrides=shared)
        made = self.config.topics
        self._lag = KafkaLag(self.config.kafka, f"{run}-clicks", made.clicks, made.partitions, "bench")

    def create_topics(self) -> None:
        specs = topic_specs(self.config.topics, self.config.worker.group)
        create_topics(self.config.kafka, specs, self.config.topics.replication)

    def remember(self, traffic: Traffic) -> None:
        """Write the users' earlier histories to the changelog, for a worker to restore when it starts."""
        outbox = KafkaOutbox(self.config.kafka, self.config.topics.max_message_bytes)
        topic = changelog_topic(self.config.worker.group)
        # Partition -1 stands for "somewhere else": its fence stops no click. The outbox chooses where the user's clicks
        # will be, by the same hash.
        outputs = [
            Output(topic, user_key(user), History(-1, -1, items).to_bytes())
            for user, items in traffic.earlier(self.config.history.length)
        ]
        with progress_bar(len(outputs), "histories") as show:
            for begin in range(0, len(outputs), _SENT):
                outbox.send(outputs[begin : begin + _SENT])
                show(min(len(outputs), begin + _SENT))

    def send(
        self, log: ClickLog, limit: int | None = None, rate: float | None = None, stop: threading.Event | None = None
    ) -> None:
        """Send clicks, again and again up to `limit`, and wait until Kafka has them all.

        With a rate, the schedule is open: each click has its moment, whatever becomes of those before it.

        Args:
            limit: None = all, once. rate: clicks/s; None = as fast as Kafka takes them.
            stop: ends it early, from another thread.
        """
        pace = {"limit": limit, "rate": rate, "loop": limit is not None}
        settings = self.replay.model_copy(update={"replay": self.replay.replay.model_copy(update=pace)})
        sender = clicks_sender(settings)
        if stop is not None:
            sender.stop = stop
        report = replay(log, settings, sender)
        if report.failed:
            raise BenchmarkError(f"Kafka did not take {report.failed} clicks: {report.reasons.most_common(1)}")

    def lag(self) -> int:
        """Clicks behind the committed offsets."""
        return sum(mark.lag for mark in self._lag.marks().values())

    def await_answers(self, worker: Worker) -> None:
        """Wait until everything that was sent is done and committed. Reads no answer: that would cost CPU time."""
        left, deadline = self.lag(), time.monotonic() + PATIENCE
        with progress_bar(left, "clicks answered") as show:
            total = left
            while left:
                worker.check()
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"{left} clicks are left, and none was answered for {PATIENCE:.0f} s")
                time.sleep(_ASK)
                before, left = left, self.lag()
                if left != before:
                    deadline = time.monotonic() + PATIENCE
                show(total - left)

    def data_dir(self, name: str) -> Path:
        """Of the worker of this name."""
        return self._folder / name

    @contextmanager
    def worker(self, agents: str, module: str = "streams", name: str = "worker") -> Iterator[Worker]:
        """A worker process that owns its partitions, with their histories; ended with the block.

        Args:
            agents: "clicks", "items" or "clicks,items".
            module: with the command line of `streams`.
            name: tells workers that run at the same time apart.
        """
        self._stage.report(f"Starting a worker for {agents}")
        (port,) = pick(1)
        sets = [*self._settings, f"worker.data_dir={self.data_dir(name)}", f"worker.metrics_port={port}"]
        arguments = ["worker", "--agents", agents, *(a for setting in sets for a in ("--set", setting))]
        with self.process(module, *arguments, name=name) as worker:
            worker.metrics_port = port
            worker.await_log(b"partitions [", times=agents.count(",") + 1)
            if "clicks" in agents:
                worker.await_log(b"took over")  # restoring histories is measured by itself
            yield worker

    @contextmanager
    def process(self, module: str, *arguments: str, name: str = "") -> Iterator[Worker]:
        """`python -m MODULE ARGUMENTS…`, ended with the block; its output goes to a log."""
        log = self._folder / f"{name or module}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=file, stderr=file
            )
        worker = Worker(process, log)
        try:
            yield worker
        finally:
            worker.end()

    def remove(self) -> None:
        """Delete the topics, as far as Kafka still answers; other processes may have made more of this name."""
        admin = AdminClient(self.config.kafka.client())
        with suppress(KafkaException):
            names = [name for name in admin.list_topics(timeout=_LEAVE).topics if name.startswith(self._run)]
            for future in admin.delete_topics(names, operation_timeout=5, request_timeout=5).values():
                future.exception()  # waits; a topic that stays is no harm
