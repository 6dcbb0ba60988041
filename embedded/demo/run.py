"""The demo: the whole path on real servers, from clicks to recommendations, ending by itself with a summary.

    data → training → topics → worker → items → replay (watched live) → audit → summary

Everything runs as a user would run it, in processes of their own; this process only watches.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.errors import MindstreamError
from configs.loader import ENVIRONMENT
from configs.text import count
from embedded.demo.data import DemoData, prepare_clicks
from embedded.demo.freshness import FreshnessProbe
from embedded.demo.messages import BROKEN_MESSAGES, count_message, send_broken_messages
from embedded.demo.scoreboard import Scoreboard
from embedded.demo.summary import summary_rows
from embedded.demo.view import View
from embedded.deployment import PRODUCER_SECTIONS, Deployment
from embedded.stack import Addresses, Flavour, Stack
from embedded.standalone import best_flavour
from model.artifact import Artifact
from model.data.malformed import Handling, MalformedLines
from model.data.reader import Order
from streams.kafka.reading import ReceivedMessage, follow
from streams.milvus.index import MilvusIndex
from streams.processing.items import SEAL_AFTER_UPSERTS
from streams.tools.audit import audit_kafka
from streams.tools.audit_report import AuditReport

#: Clicks/s. milvus-lite is written in Python: it answers some hundred queries/s, and each user needs four.
RATES: dict[Flavour, float] = {"standalone": 100.0, "lite": 10.0, "none": 100.0}
#: Seconds to wait until the index holds all items, and until the last recommendations arrive.
_WAIT_TIMEOUT_S = 90.0
#: Seconds between two newly published items.
NEW_ITEM_INTERVAL_S = 2.0
#: Seconds that a program gets to exit at the end.
_STOP_TIMEOUT_S = 10.0
#: Reads without a message, of 0.2 s each, after which the last clicks count as answered.
_QUIET_READS = 10


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the command line.

    Attributes:
        data: click file; None = generated clicks. order, malformed: how it is read, as `producers.replay` does.
        milvus: kind of Milvus; None = the best one that this platform runs.
        train_seconds, replay_seconds: how long training and replay take.
        rate: clicks/s; None = what that Milvus sustains.
    """

    data: Path | None
    order: Order
    malformed: Handling
    milvus: Flavour | None
    train_seconds: float
    replay_seconds: float
    rate: float | None


class DemoError(MindstreamError):
    """A step of the demo failed; the message says which one, and where its log is."""


class Demo:
    """One run, in a folder of its own that is emptied first.

    Args:
        folder: for servers, model, data and logs.
        options: of the command line.
        console: where the progress is shown.
    """

    def __init__(self, folder: Path, options: DemoOptions, console: Console) -> None:
        self._folder = folder.resolve()
        self._options = options
        self._console = console
        self._flavour: Flavour = options.milvus or best_flavour()
        self._rate = options.rate or RATES[self._flavour]

    def run(self) -> bool:
        """Run to the end; return whether every click is accounted for.

        Raises:
            MindstreamError: a step failed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        data = self._prepare()  # first, so that a file that cannot be used costs no time
        stack = Stack(self._folder / "servers", milvus=self._flavour, environ={})
        stack.down(wipe=True)  # what an interrupted demo may have left
        for part in ("worker", "logs", "artifact", "run", "service"):
            shutil.rmtree(self._folder / part, ignore_errors=True)
        try:
            self._step("Starting Kafka and Milvus")
            addresses = stack.up(report=lambda text: self._print(f"  {text}"))
            deployment = self._deployment(addresses)
            try:
                return self._run_on(deployment, data)
            finally:
                deployment.stop(_STOP_TIMEOUT_S)
        finally:
            stack.down(wipe=True)

    def _deployment(self, addresses: Addresses) -> Deployment:
        settings = {
            "kafka.bootstrap_servers": addresses.kafka,
            "milvus.uri": addresses.milvus,
            "model.artifact": self._folder / "artifact",
            "topics.partitions": 4,
            "milvus.timeout": 30.0,
            # milvus-lite needs about 10 ms for a query: small batches keep the recommendations coming.
            "batch.size": 256 if self._flavour == "standalone" else 4,
        }
        return Deployment(self._folder, settings)

    def _run_on(self, deployment: Deployment, data: DemoData) -> bool:
        self._train(deployment, data)
        self._start_worker(deployment)
        board = self._replay(deployment, data)
        report = audit_kafka(deployment.config, items=True)
        self._summary(board, report)
        return report.ok and report.dead_letters == len(BROKEN_MESSAGES)

    def _start_worker(self, deployment: Deployment) -> None:
        """Create the topics, start a worker and fill its collection."""
        self._step("Creating the topics")
        deployment.start("streams", "topics", "create", name="topics").await_success()
        self._step("Starting the worker")
        worker = deployment.start_worker()
        worker.await_http(worker.metrics_port, "/healthz")  # it has created the collection; ready when that is filled
        self._publish(deployment)
        worker.await_ready()

    def _prepare(self) -> DemoData:
        options = self._options
        malformed = MalformedLines(options.malformed, "--{} {}")
        clicks = int(self._rate * options.replay_seconds)
        data = prepare_clicks(options.data, self._folder, clicks, malformed, options.order)
        self._step(
            f"{data.source}: training on {count(data.train_clicks, 'click')}; {count(data.replay_users, 'user')} who "
            f"are not in training, with {count(data.replay_clicks, 'click')}, will be replayed"
        )
        for skipped in malformed.skipped:
            self._print(f"  {skipped}")
        return data

    def _train(self, deployment: Deployment, data: DemoData) -> None:
        self._step(f"Training MIND for up to {self._options.train_seconds:.0f} s")
        command = ["model.train", "--data", str(data.train), "--out", str(self._folder / "artifact")]
        command += ["--run", str(self._folder / "run")]
        limit = ["--set", f"training.max_seconds={self._options.train_seconds}", "--set", f"data.order={data.order}"]
        deployment.start(*command, *limit, sections=(), shown=True).await_success()

    def _publish(self, deployment: Deployment) -> None:
        self._step("Publishing the items")
        config = deployment.config
        artifact = Artifact.load(config.model.artifact)
        expected = len(artifact.item_ids)
        command = ["producers.items", "--artifact", str(config.model.artifact)]
        deployment.start(*command, sections=PRODUCER_SECTIONS).await_success()
        index = MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create=False)
        with contextlib.closing(index):
            self._await(deployment, f"{count(expected, 'item')} in Milvus", lambda: index.describe().count >= expected)
            if self._flavour == "standalone" and expected >= SEAL_AFTER_UPSERTS:
                # The worker leaves fewer than SEAL_AFTER_UPSERTS outside the graph, where they are compared one by one.
                indexed = expected - SEAL_AFTER_UPSERTS
                self._await(deployment, "Milvus to index them", lambda: index.indexed_count() > indexed)

    def _replay(self, deployment: Deployment, data: DemoData) -> Scoreboard:
        config = deployment.config
        artifact = Artifact.load(config.model.artifact)
        popular = artifact.item_ids[np.argsort(-artifact.item_counts, kind="stable")].tolist()
        board = Scoreboard(popular, data.story_user)
        self._step(f"Replaying clicks at {self._rate:.0f} a second")
        topics = config.topics
        arrivals = follow(config.kafka, [topics.clicks, topics.recommendations, topics.dead_letters])
        next(arrivals)  # subscribed before the first click is sent
        command = ["producers.replay", str(data.replay), "--rate", str(self._rate), "--order", data.order]
        replay = deployment.start(*command, sections=PRODUCER_SECTIONS)
        send_broken_messages(config)
        total = data.replay_clicks + len(BROKEN_MESSAGES)
        deadline = None
        with (
            FreshnessProbe(config, artifact, board.new_items, interval_s=NEW_ITEM_INTERVAL_S),
            View(self._console, board, total, data.item_text) as view,
        ):
            for message in arrivals:
                deployment.check()
                if message is not None:
                    count_message(board, topics, message)
                view.update()
                if board.clicks + board.dead_letters >= total and message is None:
                    break
                if replay.poll() == 0:
                    deadline = deadline or time.monotonic() + _WAIT_TIMEOUT_S
                    if time.monotonic() > deadline:
                        self._print(f"  gave up waiting for the last recommendations after {_WAIT_TIMEOUT_S:.0f} s")
                        break
            if not self._console.is_terminal:
                self._print(view.line())
        self._drain(arrivals, board, deployment)
        return board

    def _drain(self, arrivals: Iterator[ReceivedMessage | None], board: Scoreboard, deployment: Deployment) -> None:
        """Wait until the worker has answered the last clicks."""
        quiet = 0
        while quiet < _QUIET_READS:
            message = next(arrivals)
            quiet = quiet + 1 if message is None else 0
            if message is not None:
                count_message(board, deployment.config.topics, message)

    def _summary(self, board: Scoreboard, report: AuditReport) -> None:
        self._step("Summary")
        for name, text in summary_rows(board, report).items():
            self._print(f"  {name:28} {text}")
        self._print(f"  Logs: {self._folder / 'logs'}; model: {self._folder / 'artifact'}")

    def _await(self, deployment: Deployment, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_TIMEOUT_S
        while not condition():
            deployment.check()
            if time.monotonic() > deadline:
                raise DemoError(f"waited {_WAIT_TIMEOUT_S:.0f} s for {what}; see {self._folder / 'logs'}")
            time.sleep(0.3)

    def _step(self, text: str) -> None:
        self._console.print(f"[bold]▸ {text}[/]", soft_wrap=True)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)


def run(options: DemoOptions, folder: Path) -> int:
    """Run the demo and return the exit status.

    0: every click is accounted for; 1: some are not; 130: interrupted; otherwise that of the error (`configs.errors`).
    """
    console = Console(highlight=False)

    def whole() -> int:
        accounted = Demo(folder, options, console).run()
        console.print(
            "[bold green]Every click is accounted for.[/]" if accounted else "[bold red]Clicks are unaccounted for.[/]"
        )
        console.print("See it happen, and click yourself: [bold]make page[/]")
        return 0 if accounted else 1

    return guarded(console, "demo", whole)


def guarded(console: Console, name: str, action: Callable[[], int]) -> int:
    """Return the exit status of an action that starts servers of its own: 130 if interrupted, or that of its error."""
    # The programs that it starts inherit the environment.
    if ignored := [one for one in ENVIRONMENT if os.environ.pop(one, None) is not None]:
        console.print(
            f"The {name} uses servers and files of its own, and ignores {', '.join(ignored)}.", soft_wrap=True
        )
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a shell starts background commands with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        return action()
    except KeyboardInterrupt:
        console.print("Interrupted; the servers are stopped.")
        return 130
    except MindstreamError as error:
        console.print(f"The {name} failed: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_status
