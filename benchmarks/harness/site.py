"""The topics and processes of one benchmark."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from benchmarks.harness.data import Traffic
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.process import Worker
from benchmarks.harness.report import ROOT
from benchmarks.harness.servers import ASK, LEAVE, PATIENCE, BenchmarkServers
from configs.cli import progress_bar
from configs.loader import load_replay, load_worker
from configs.schema import ReplayConfig, WorkerConfig
from embedded.ports import pick
from producers.click_log import ClickLog
from producers.replay import clicks_sender, replay
from streams.history import History
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import changelog_topic, create_topics, topic_specs
from streams.messages.clicks import user_key
from streams.ports import Output
from streams.worker.lag import KafkaLag

#: Histories sent at a time.
_SENT = 20_000


class BenchmarkSite:
    """One benchmark's topics and processes.

    Attributes:
        config, replay: settings of the worker and of the producers.
    """

    def __init__(self, stage: BenchmarkServers, name: str, settings: Mapping[str, object]) -> None:
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
        producer = KafkaRecordProducer(self.config.kafka, self.config.topics.max_message_bytes)
        topic = changelog_topic(self.config.worker.group)
        # Partition -1 means "another partition": its fence stops no click. The producer chooses the partition of the
        # user's clicks by the same hash.
        outputs = [
            Output(topic, user_key(user), History(-1, -1, items).to_bytes())
            for user, items in traffic.earlier(self.config.history.length)
        ]
        with progress_bar(len(outputs), "histories") as show:
            for begin in range(0, len(outputs), _SENT):
                producer.send(outputs[begin : begin + _SENT])
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
        return sum(lag.lag for lag in self._lag.partition_lags().values())

    def await_answers(self, worker: Worker) -> None:
        """Wait until everything that was sent is done and committed. Reads no answer: that would cost CPU time."""
        left, deadline = self.lag(), time.monotonic() + PATIENCE
        with progress_bar(left, "clicks answered") as show:
            total = left
            while left:
                worker.check()
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"{left} clicks are left, and none was answered for {PATIENCE:.0f} s")
                time.sleep(ASK)
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
                worker.await_log(b"acquired partitions")  # restoring histories is measured by itself
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
            names = [name for name in admin.list_topics(timeout=LEAVE).topics if name.startswith(self._run)]
            for future in admin.delete_topics(names, operation_timeout=5, request_timeout=5).values():
                future.exception()  # waits; a topic that stays is no harm
