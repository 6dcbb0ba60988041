"""One benchmark's deployment: its topics, its clicks and its workers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.harness.data import Traffic
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.servers import POLL_S, STALL_TIMEOUT_S, BenchmarkServers
from configs.cli import progress_bar
from configs.loader import load_replay
from configs.schema import ReplayConfig
from embedded.deployment import PRODUCER_SECTIONS, WORKER, Deployment
from embedded.program import Program, WorkerProgram
from model.artifact import Artifact
from producers.click_log import ClickLog
from producers.replay import clicks_sender, replay
from streams.history import History
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import user_key
from streams.ports import Output
from streams.worker.lag import KafkaLag

#: Histories sent at a time.
_CHUNK = 20_000


class BenchmarkSite(Deployment):
    """The deployment of one benchmark.

    Args:
        servers: the servers; their addresses are in `settings`.
        name: name of the benchmark.
        settings: configuration keys that differ from the shipped ones.

    Attributes:
        replay: settings of the producers.
    """

    def __init__(self, servers: BenchmarkServers, name: str, settings: Mapping[str, object]) -> None:
        run = f"bench-{name}-{uuid.uuid4().hex[:8]}"
        super().__init__(servers.folder / run, settings, name=run)
        self.replay: ReplayConfig = load_replay(overrides=self.overrides(PRODUCER_SECTIONS))
        self._report = servers.report
        topics = self.config.topics
        self._lag = KafkaLag(self.config.kafka, f"{run}-clicks", topics.clicks, topics.partitions, "bench")

    def write_histories(self, traffic: Traffic) -> None:
        """Write the users' earlier histories to the changelog, for a worker to restore when it starts."""
        producer = KafkaRecordProducer(
            self.config.kafka, self.config.topics.max_message_bytes, self.config.topics.partitioner
        )
        topic = changelog_topic(self.config.worker.group)
        # Partition -1 means "another partition": its fence stops no click. The producer chooses the partition of the
        # user's clicks by the same hash.
        outputs = [
            Output(topic, user_key(user), History(-1, -1, items).to_bytes())
            for user, items in traffic.earlier(self.config.history.length)
        ]
        with progress_bar(len(outputs), "histories") as show:
            for begin in range(0, len(outputs), _CHUNK):
                producer.send(outputs[begin : begin + _CHUNK])
                show(min(len(outputs), begin + _CHUNK))

    def send_clicks(
        self, log: ClickLog, limit: int | None = None, rate: float | None = None, stop: threading.Event | None = None
    ) -> None:
        """Send clicks and wait until Kafka has acknowledged them all.

        With a rate, the schedule is open: each click has its scheduled time, however late the clicks before it were.

        Args:
            log: the clicks.
            limit: number of clicks; the log is repeated if it is shorter. None = the log, once.
            rate: clicks/s; None = as fast as Kafka accepts them.
            stop: set by another thread to end it early.

        Raises:
            BenchmarkError: a click was not delivered.
        """
        pace = {"limit": limit, "rate": rate, "loop": limit is not None}
        settings = self.replay.model_copy(update={"replay": self.replay.replay.model_copy(update=pace)})
        sender = clicks_sender(settings)
        if stop is not None:
            sender.stop = stop
        report = replay(log, settings, sender)
        if report.failed:
            raise BenchmarkError(f"{report.failed} clicks were not delivered: {report.reasons.most_common(1)}")

    def lag(self) -> int:
        """Return the number of clicks behind the committed offsets."""
        return sum(lag.lag for lag in self._lag.partition_lags().values())

    def await_commits(self, worker: WorkerProgram) -> None:
        """Wait until all clicks are answered and committed. It reads no recommendations, which would take CPU time.

        Raises:
            BenchmarkError, EmbeddedError: the worker stalled or ended.
        """
        left, deadline = self.lag(), time.monotonic() + STALL_TIMEOUT_S
        with progress_bar(left, "clicks answered") as show:
            total = left
            while left:
                worker.require_running()
                if time.monotonic() > deadline:
                    raise BenchmarkError(
                        f"{left} clicks are left, and none was answered within {STALL_TIMEOUT_S:.0f} s"
                    )
                time.sleep(POLL_S)
                before, left = left, self.lag()
                if left != before:
                    deadline = time.monotonic() + STALL_TIMEOUT_S
                show(total - left)

    @contextmanager
    def worker(self, *arguments: str, name: str = "worker", program: Sequence[str] = WORKER) -> Iterator[WorkerProgram]:
        """Run a worker in a block, as `Deployment.worker`. Its start, with the restored histories, is not measured."""
        self._report(f"Starting a worker ({' '.join(arguments)})")
        with super().worker(*arguments, name=name, program=program) as worker:
            yield worker

    @contextmanager
    def program(self, module: str, *arguments: str, name: str | None = None) -> Iterator[Program]:
        """Run a program that has no settings of this site in a block, with a log of this name or the module's."""
        program = self.start(module, *arguments, sections=(), name=name)
        try:
            yield program
        finally:
            program.stop()


@contextmanager
def benchmark_site(
    servers: BenchmarkServers,
    name: str,
    artifact: Artifact | None = None,
    settings: Mapping[str, object] | None = None,
) -> Iterator[BenchmarkSite]:
    """Create the topics of one benchmark, and delete them at the end of the block.

    Args:
        servers: the servers to use.
        name: of the benchmark.
        artifact: the workers' model, whose items are in Milvus (`BenchmarkServers.index`); None = no workers.
        settings: configuration keys that differ from the shipped ones.
    """
    addresses: dict[str, object] = {"kafka.bootstrap_servers": servers.kafka()}
    if artifact is not None:
        addresses |= {"milvus.uri": servers.milvus_uri(), "model.artifact": artifact.path}
    site = BenchmarkSite(servers, name, addresses | dict(settings or {}))
    site.create_topics()
    try:
        yield site
    finally:
        site.stop()
        site.remove_topics()
