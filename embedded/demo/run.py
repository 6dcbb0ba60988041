"""The demo: the whole path on real servers, from clicks to recommendations, ending by itself with a summary.

    data → training → topics → worker → items → replay (watched live) → audit → summary

Everything runs as a user would run it, in processes of their own; only the watching happens here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from configs.errors import MindstreamError
from configs.loader import load_worker
from configs.schema import WorkerConfig
from embedded.demo.data import DemoData, prepare
from embedded.demo.freshness import FreshnessProbe
from embedded.demo.scoreboard import CUT, Scoreboard, percentile
from embedded.demo.view import View
from embedded.stack import Addresses, Flavour, Stack
from embedded.standalone import best_flavour
from model.artifact import Artifact
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import ReceivedMessage, follow
from streams.messages.clicks import decode_click
from streams.messages.recommendations import decode_recommendation
from streams.milvus.index import MilvusIndex
from streams.ports import Output
from streams.processing.items import SEAL_AFTER
from streams.tools.audit import AuditReport, audit_kafka

#: Clicks a second. milvus-lite is Python: it answers some hundred queries a second, four of them a user.
RATES: dict[Flavour, float] = {"standalone": 100.0, "lite": 10.0, "none": 100.0}
#: Seconds to wait for the worker to own its partitions, the index to fill, the last answers to arrive.
PATIENCE = 90.0
#: Seconds between two newly published items.
NEW_ITEM_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line offers; `data` None = generated clicks, `milvus` None = the best this platform runs."""

    data: Path | None
    milvus: Flavour | None
    train_seconds: float
    replay_seconds: float
    rate: float | None


class DemoError(MindstreamError):
    """A step of the demo failed; the message says which, and where its log is."""


class Demo:
    """One run, in a folder of its own that is emptied first."""

    def __init__(self, folder: Path, options: DemoOptions, console: Console) -> None:
        self._folder = folder
        self._options = options
        self._console = console
        self._flavour: Flavour = options.milvus or best_flavour()
        self._rate = options.rate or RATES[self._flavour]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._settings: list[str] = []

    def run(self) -> bool:
        """Run to the end; True when every click is accounted for.

        Raises:
            DemoError, EmbeddedError, MindstreamError: a step failed.
        """
        stack = Stack(self._folder / "servers", milvus=self._flavour)
        stack.down(wipe=True)  # what an interrupted demo may have left
        for part in ("worker", "logs", "artifact", "run"):
            shutil.rmtree(self._folder / part, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._step("Starting Kafka and Milvus")
            addresses = stack.up(report=lambda text: self._say(f"  {text}"))
            config = self._configure(addresses)
            data = self._prepare()
            self._train(data)
            self._command("Creating the topics", ["streams", "topics", "create", *self._sets("topics", "worker")])
            self._start_worker(config)
            self._publish(config)
            board = self._replay(config, data)
            report = audit_kafka(config)
            self._summary(board, report)
            return report.ok and report.dead_letters == len(_BROKEN)
        finally:
            self._end_processes()
            stack.down(wipe=True)

    def _configure(self, addresses: Addresses) -> WorkerConfig:
        """Settings of this run, as overrides of the shipped files; every command gets the same."""
        settings = {
            "kafka.bootstrap_servers": addresses.kafka,
            "milvus.uri": addresses.milvus,
            "model.artifact": self._folder / "artifact",
            "worker.data_dir": self._folder / "worker",
            "worker.metrics_port": 0,
            "topics.partitions": 4,
            "milvus.timeout": 30.0,
            # milvus-lite needs about 10 ms a query: small batches keep the answers coming.
            "batch.size": 256 if self._flavour == "standalone" else 4,
        }
        if "MINDSTREAM_KAFKA" in os.environ:  # a broker of the user's: names of our own, so that nothing is mixed up
            run = f"demo-{int(time.time())}"
            settings |= {f"topics.{name}": f"{run}-{name}" for name in ("clicks", "items", "recommendations")}
            settings |= {"topics.dead_letters": f"{run}-dead-letters", "worker.group": run}
        self._settings = [f"{key}={value}" for key, value in settings.items()]
        return load_worker(overrides=self._settings)

    def _prepare(self) -> DemoData:
        data = prepare(self._options.data, self._folder, clicks=int(self._rate * self._options.replay_seconds))
        self._step(
            f"{data.source}: training on {data.train_clicks:,} clicks; {data.replay_users:,} users who are not in "
            f"training, with {data.replay_clicks:,} clicks, will be replayed"
        )
        return data

    def _train(self, data: DemoData) -> None:
        command = ["model.train", "--data", str(data.train), "--out", str(self._folder / "artifact")]
        command += ["--run", str(self._folder / "run")]
        limits = ["--set", f"training.max_seconds={self._options.train_seconds}"]
        self._command(f"Training MIND for up to {self._options.train_seconds:.0f} s", [*command, *limits], show=True)

    def _start_worker(self, config: WorkerConfig) -> None:
        self._step("Starting the worker")
        self._start("worker", ["streams", "worker", *self._sets()])
        self._wait("the worker to create the index", lambda: _index(config) is not None)

    def _publish(self, config: WorkerConfig) -> None:
        command = ["producers.items", "--artifact", str(config.model.artifact), *self._sets("kafka", "topics")]
        self._command("Publishing the items", command)
        expected = len(Artifact.load(config.model.artifact).item_ids)
        index = _index(config)
        assert index is not None
        self._wait(f"{expected:,} items in Milvus", lambda: index.describe().count >= expected)
        if self._flavour == "standalone" and expected >= SEAL_AFTER:
            # The worker leaves fewer than SEAL_AFTER outside the graph, where they are compared one by one.
            self._wait("Milvus to index them", lambda: index.indexed_count() > expected - SEAL_AFTER)

    def _replay(self, config: WorkerConfig, data: DemoData) -> Scoreboard:
        artifact = Artifact.load(config.model.artifact)
        popular = artifact.item_ids[np.argsort(-artifact.item_counts, kind="stable")].tolist()
        board = Scoreboard(popular, data.story)
        self._step(f"Replaying clicks at {self._rate:.0f} a second")
        topics = config.topics
        arrivals = follow(config.kafka, [topics.clicks, topics.recommendations, topics.dead_letters])
        next(arrivals)  # subscribed before the first click is sent
        replay = self._start(
            "replay",
            ["producers.replay", str(data.replay), "--rate", str(self._rate), *self._sets("kafka", "topics")],
        )
        total = data.replay_clicks + len(_BROKEN)
        deadline = None
        KafkaRecordProducer(config.kafka, config.topics.max_message_bytes).send(
            [Output(config.topics.clicks, key, value) for key, value in _BROKEN]
        )
        with (
            FreshnessProbe(config, artifact, board, every=NEW_ITEM_EVERY),
            View(self._console, board, total, data.name) as view,
        ):
            for message in arrivals:
                self._watch_processes()
                if message is not None:
                    _record(board, config, message)
                view.update()
                if board.clicks + board.dead_letters >= total and message is None:
                    break
                if replay.poll() == 0:
                    deadline = deadline or time.monotonic() + PATIENCE
                    if time.monotonic() > deadline:
                        self._say(f"  gave up waiting for the last answers after {PATIENCE:.0f} s")
                        break
            if not self._console.is_terminal:
                self._say(view.line())
        self._drain(arrivals, board, config)
        return board

    def _drain(self, arrivals: Iterator[ReceivedMessage | None], board: Scoreboard, config: WorkerConfig) -> None:
        """Wait until the worker has answered the last clicks: 2 s without a message."""
        quiet = 0
        while quiet < 10:
            message = next(arrivals)
            quiet = quiet + 1 if message is None else 0
            if message is not None:
                _record(board, config, message)

    def _summary(self, board: Scoreboard, report: AuditReport) -> None:
        ours, popular = board.hit_rates()
        rows = {
            "clicks in": f"{report.clicks:,}",
            "recommendations out": f"{report.recommendations:,}",
            "users": f"{report.users:,} ({report.without_candidates:,} without a known item, so without an answer)",
            "click → recommendation": f"p50 {percentile(board.latencies, 50)}, p99 {percentile(board.latencies, 99)}",
            f"already recommended (hit@{CUT})": f"{ours:.1%} of {board.judged:,} clicks; popular items: {popular:.1%}",
            "new item searchable": f"p50 {percentile(board.searchable, 50)}, "
            f"max {percentile(board.searchable, 100)} ({len(board.searchable)} items published during the run, "
            f"{len(board.first_recommended)} of them recommended)",
            "dead letters": f"{report.dead_letters} ({len(_BROKEN)} broken messages were sent on purpose)",
            "histories recomputed": f"{report.users - report.histories_different - report.histories_missing:,} of "
            f"{report.users:,} equal",
            "unaccounted": f"{report.unaccounted + report.users_stale}",
        }
        self._step("Summary")
        for name, text in rows.items():
            self._say(f"  {name:28} {text}")
        self._say(f"  Logs: {self._folder / 'logs'}; model: {self._folder / 'artifact'}")

    # Processes

    def _sets(self, *sections: str) -> list[str]:
        """`--set` arguments; only those of some sections, or all."""
        chosen = [s for s in self._settings if not sections or s.split(".")[0] in sections]
        chosen += [s for s in self._settings if sections and s.startswith("kafka.") and s not in chosen]
        return [argument for setting in chosen for argument in ("--set", setting)]

    def _command(self, title: str, arguments: Sequence[str], *, show: bool = False) -> None:
        """Run a command to its end, shown or into a log."""
        self._step(title)
        name = arguments[0].split(".")[-1]
        process = self._start(name, arguments, show=show)
        status = process.wait()
        self._processes.remove(process)
        if status != 0:
            raise DemoError(f"{title} failed with status {status}; {_log_hint(self._log(name), show)}")

    def _start(self, name: str, arguments: Sequence[str], *, show: bool = False) -> subprocess.Popen[bytes]:
        log = self._log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            output = None if show else file
            command = [sys.executable, "-m", *arguments]
            process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own commands
        self._processes.append(process)
        return process

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _watch_processes(self) -> None:
        for process in self._processes:
            if process.poll() not in (None, 0):
                name = str(process.args[2]) if isinstance(process.args, list) else "a process"
                log = "worker" if name == "streams" else name.split(".")[-1]
                raise DemoError(f"{name} ended with status {process.returncode}; {_log_hint(self._log(log), False)}")

    def _wait(self, what: str, done: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            self._watch_processes()
            if time.monotonic() > deadline:
                raise DemoError(f"waited {PATIENCE:.0f} s in vain for {what}; see {self._folder / 'logs'}")
            time.sleep(0.3)

    def _end_processes(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _step(self, text: str) -> None:
        self._console.print(f"[bold]▸ {text}[/]", soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)


def run(options: DemoOptions, folder: Path) -> int:
    """Run the demo; returns the exit status: 0 all accounted for, 1 not, 130 interrupted, or that of an error."""
    console = Console(highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a shell starts background commands with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        accounted = Demo(folder, options, console).run()
    except KeyboardInterrupt:
        console.print("Interrupted; the servers are stopped.")
        return 130
    except MindstreamError as error:
        console.print(f"The demo failed: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_status
    console.print(
        "[bold green]Every click is accounted for.[/]" if accounted else "[bold red]Clicks are unaccounted for.[/]"
    )
    return 0 if accounted else 1


#: Sent among the clicks on purpose: (key, value) of messages that no worker can read.
_BROKEN = (
    (b"broken-1", b"this is not JSON"),
    (b"broken-2", json.dumps({"user_id": "broken-2", "ts": 1.0}).encode()),
    (b"broken-3", None),
)


def _record(board: Scoreboard, config: WorkerConfig, record: ReceivedMessage) -> None:
    message = record.message
    if message.topic == config.topics.dead_letters:
        board.dead_letters += 1
    elif message.topic == config.topics.recommendations:
        assert message.key is not None and message.value is not None  # the worker wrote it
        board.recommendation(message.key, decode_recommendation(message.value), record.timestamp)
    elif (message.key, message.value) not in _BROKEN:
        assert message.key is not None  # the replay wrote it
        board.click(message.key, message.offset, decode_click(message.key, message.value))


def _index(config: WorkerConfig) -> MilvusIndex | None:
    artifact = Artifact.load(config.model.artifact, verify=False)
    with contextlib.suppress(MindstreamError):
        return MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create=False)
    return None


def _log_hint(log: Path, shown: bool) -> str:
    if shown:
        return "see above"
    tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    return "\n".join([f"its log {log} ends with", *tail])
