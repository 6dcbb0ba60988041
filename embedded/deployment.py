"""One isolated installation: topics, a consumer group, a folder, and the programs that run on them.

    deployment = Deployment(folder, {"kafka.bootstrap_servers": "127.0.0.1:9092", …}, name="bench-latency-1f0c")
    deployment.create_topics()
    with deployment.worker("--agents", "clicks") as worker:
        deployment.start("producers.replay", "clicks.csv", sections=PRODUCER_SECTIONS).await_success()
    deployment.remove_topics()

Deployments with different names are isolated from each other, so several may share a broker and a Milvus. The demo, the
tests and the benchmarks use this class; the servers are started elsewhere (`embedded.stack`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from configs.loader import load_worker
from configs.schema import WorkerConfig
from embedded import ports
from embedded.instance import CHECKOUT
from embedded.program import STOP_TIMEOUT_S, Program, WorkerProgram
from streams.kafka.topics import create_topics, topic_specs

#: Module and command of the worker.
WORKER = ("streams", "worker")
#: Sections of the producers' configuration.
PRODUCER_SECTIONS = ("kafka", "topics")
#: Seconds that Kafka gets to list the topics before they are removed.
_LIST_TIMEOUT_S = 20.0
#: Seconds that Kafka gets to remove them.
_REMOVE_TIMEOUT_S = 5.0


class Deployment:
    """One installation. Creating the object starts no program and creates no topic.

    Args:
        folder: for logs and the workers' data.
        settings: configuration keys that differ from the shipped ones, the addresses of the servers among them.
        name: the consumer group, and the prefix of all topics; None = the shipped names, on a broker of its own.
        environ: environment variables, read for `config`. Programs get those of this process when they start.

    Attributes:
        folder: as an absolute path.
        settings: overrides as `--set` takes them, "key=value"; every program gets those of the sections that it has.
        config: the configuration of the worker.

    Raises:
        ConfigError: a setting is wrong or unknown.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        *,
        name: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.folder = folder.resolve()
        self.name = name
        # For workers that `start_worker` does not start: their data is here, and they open no port, because another
        # worker may use it.
        own = {"worker.data_dir": self.data_dir("worker"), "worker.metrics_port": 0}
        self.settings = [f"{key}={value}" for key, value in (own | _names(name) | dict(settings)).items()]
        self.config: WorkerConfig = load_worker(overrides=self.settings, environ=environ)
        self._programs: list[Program] = []

    def create_topics(self, changed: Mapping[str, str] | None = None) -> None:
        """Create all topics.

        Args:
            changed: topic settings that replace or extend the shipped ones.

        Raises:
            TransientError, FatalError: Kafka is unavailable, or refuses.
        """
        specs = topic_specs(self.config.topics, self.config.worker.group)
        specs = [replace(spec, config={**spec.config, **(changed or {})}) for spec in specs]
        create_topics(self.config.kafka, specs, self.config.topics.replication)

    def remove_topics(self) -> None:
        """Delete the topics whose names begin with this name; do nothing if Kafka does not answer."""
        assert self.name is not None, "topics with the shipped names may be the user's"
        admin = AdminClient(self.config.kafka.client_settings())
        with suppress(KafkaException):
            names = [name for name in admin.list_topics(timeout=_LIST_TIMEOUT_S).topics if name.startswith(self.name)]
            removals = admin.delete_topics(
                names, operation_timeout=_REMOVE_TIMEOUT_S, request_timeout=_REMOVE_TIMEOUT_S
            )
            for removal in removals.values():
                removal.exception()  # waits; a topic that remains does no harm

    def overrides(self, sections: Collection[str] | None = None) -> list[str]:
        """Return the settings of these sections; None = of all."""
        return [s for s in self.settings if sections is None or s.split(".")[0] in sections]

    def command(self, module: str, *arguments: str, sections: Collection[str] | None = None) -> list[str]:
        """Return the command line of a program with the settings of this deployment.

        Args:
            module: run by `python -m`.
            arguments: the program's own; options among them override the settings.
            sections: of the configuration that the program has; None = all of the worker's.
        """
        options = next((i for i, a in enumerate(arguments) if a.startswith("--")), len(arguments))
        sets = [argument for setting in self.overrides(sections) for argument in ("--set", setting)]
        return [sys.executable, "-m", module, *arguments[:options], *sets, *arguments[options:]]

    def start(
        self,
        module: str,
        *arguments: str,
        sections: Collection[str] | None = None,
        name: str | None = None,
        shown: bool = False,
    ) -> Program:
        """Start a program; it runs until it ends, or `stop` ends it.

        Args:
            module, arguments, sections: as for `command`.
            name: of the log; None = the module's name.
            shown: whether the output goes to the terminal instead of the log.
        """
        command = self.command(module, *arguments, sections=sections)
        log = None if shown else self.log(name or module)
        program = Program(module, _spawn(command, log), log)
        self._programs.append(program)
        return program

    def start_worker(
        self,
        *arguments: str,
        name: str = "worker",
        program: Sequence[str] = WORKER,
        environ: Mapping[str, str] | None = None,
    ) -> WorkerProgram:
        """Start a worker process with a data folder, a log and a metrics port of its own; it need not be ready yet.

        Args:
            arguments: options of `python -m streams worker`.
            name: of its data folder and its log; workers that run at the same time need different ones.
            program: module and command; a program other than the worker must have the same options.
            environ: environment variables; None = this process's.
        """
        (port,) = ports.pick(1)
        its_own = ["--set", f"worker.data_dir={self.data_dir(name)}", "--set", f"worker.metrics_port={port}"]
        command = self.command(*program, *its_own, *arguments)
        log = self.log(name)
        worker = WorkerProgram(name, _spawn(command, log, environ), log, port)
        self._programs.append(worker)
        return worker

    @contextmanager
    def worker(self, *arguments: str, name: str = "worker", program: Sequence[str] = WORKER) -> Iterator[WorkerProgram]:
        """Run a worker process in a block, which begins when the worker is ready.

        Args:
            arguments, name, program: as for `start_worker`.

        Raises:
            EmbeddedError: it did not become ready; the message shows the end of its log.
        """
        worker = self.start_worker(*arguments, name=name, program=program)
        try:
            worker.await_ready()
            yield worker
        finally:
            worker.stop()

    def log(self, name: str) -> Path:
        """Return the log file of a program."""
        return self.folder / "logs" / f"{name}.log"

    def data_dir(self, name: str) -> Path:
        """Return the data folder of a worker."""
        return self.folder / name

    def check(self) -> None:
        """Raise `EmbeddedError`, which shows the end of its log, if a program has failed."""
        for program in self._programs:
            program.check()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End all programs at the same time: by SIGTERM, and those that do not end in time by SIGKILL."""
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            program.await_stop(timeout_s)


def _names(name: str | None) -> dict[str, object]:
    """Return the settings that give the group and the topics names of their own."""
    if name is None:
        return {}
    topics = ("clicks", "items", "recommendations", "dead_letters")
    return {"worker.group": name, **{f"topics.{topic}": f"{name}-{topic.replace('_', '-')}" for topic in topics}}


def _spawn(command: list[str], log: Path | None, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    if log is None:
        return subprocess.Popen(command, cwd=CHECKOUT, env=environ)  # noqa: S603 - our own commands
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own commands
            command, cwd=CHECKOUT, env=environ, stdout=output, stderr=output
        )
