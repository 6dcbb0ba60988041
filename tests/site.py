"""A site of its own on shared servers: topics, artifact, collection, worker processes, for tests of the whole path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness.data import random_artifact
from configs.loader import load_worker
from configs.schema import WorkerConfig
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import read_to_end
from streams.kafka.topics import HEADER_BYTES, create_topics, topic_specs
from streams.messages.clicks import Click, encode_click, user_key
from streams.messages.items import Item, encode_item
from streams.milvus.index import MilvusIndex
from streams.ports import Message, Output

ROOT = Path(__file__).parents[1]
#: Seconds that a condition gets on a busy machine.
PATIENCE = 90.0


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain for {what}"
        time.sleep(0.1)


class Site:
    """Everything has names of its own, so sites do not see each other."""

    def __init__(self, folder: Path, kafka: str, milvus: str, items: int = 300, partitions: int = 4) -> None:
        self.folder = folder
        self.artifact = random_artifact(folder / "artifact", items, dim=16)
        name = f"t{uuid.uuid4().hex[:8]}"
        settings = {
            "kafka.bootstrap_servers": kafka,
            "milvus.uri": milvus,
            "model.artifact": self.artifact.path,
            "worker.data_dir": folder / "worker",
            "worker.group": name,
            "worker.commit_interval": 0.2,
            "worker.metrics_port": 0,
            "topics.partitions": partitions,
            "topics.item_partitions": 2,
            "topics.clicks": f"{name}-clicks",
            "topics.items": f"{name}-items",
            "topics.recommendations": f"{name}-recommendations",
            "topics.dead_letters": f"{name}-dead-letters",
            "milvus.hnsw_ef": 1000,
        }
        self.settings = [f"{key}={value}" for key, value in settings.items()]
        self.config: WorkerConfig = load_worker(None, self.settings, {})
        self.producer = KafkaRecordProducer(self.config.kafka, self.config.topics.max_message_bytes + HEADER_BYTES)

    def create_topics(self, changed: Mapping[str, str] | None = None) -> None:
        """Create all topics; `changed`: settings that they have instead of ours, or beside them."""
        specs = topic_specs(self.config.topics, self.config.worker.group)
        specs = [replace(spec, config={**spec.config, **(changed or {})}) for spec in specs]
        create_topics(self.config.kafka, specs, self.config.topics.replication)

    def index(self, *, create: bool = False) -> MilvusIndex:
        return MilvusIndex(self.config.milvus, self.artifact.model_version, self.artifact.dim, create=create)

    def fill_index(self) -> None:
        """Put the artifact's items into Milvus directly."""
        index = self.index(create=True)
        index.upsert(self.artifact.item_ids, np.asarray(self.artifact.item_vectors))
        wait_for(lambda: index.describe().count == len(self.artifact.item_ids), "the items in Milvus")
        index.close()

    def click(self, user: int | str, item: int) -> Output:
        value = encode_click(Click(user, item, time.time()))
        return Output(self.config.topics.clicks, user_key(user), value)

    def item(self, item_id: int, vector: np.ndarray | None, version: str | None = None) -> Output:
        value = None
        if vector is not None:
            value = encode_item(Item(item_id, vector, version or self.artifact.model_version))
        return Output(self.config.topics.items, str(item_id).encode(), value)

    def messages(self, topic: str) -> list[Message]:
        return [record.message for record in read_to_end(self.config.kafka, topic)]

    def dead_letters(self) -> list[tuple[Message, dict[str, str]]]:
        """Dead letters with their headers as text."""
        found = read_to_end(self.config.kafka, self.config.topics.dead_letters, headers=True)
        return [(m, {name: value.decode() for name, value in headers.items()}) for m, headers, _ in found]

    def command(self, *arguments: str, sets: Sequence[str] | None = None) -> list[str]:
        chosen = self.settings if sets is None else [s for s in self.settings if s.split(".")[0] in sets]
        first = next((i for i, a in enumerate(arguments) if a.startswith("--")), len(arguments))
        sets_ = [a for s in chosen for a in ("--set", s)]  # before the caller's own, which override them
        return [sys.executable, "-m", *arguments[:first], *sets_, *arguments[first:]]

    def run(self, *arguments: str, sets: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of our commands to its end."""
        return subprocess.run(
            self.command(*arguments, sets=sets), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )

    @contextmanager
    def worker(self, *extra: str, name: str = "worker") -> Iterator[subprocess.Popen[bytes]]:
        """A worker process that owns its partitions; ended with SIGTERM, unless it has ended before."""
        log = self.folder / f"{name}.log"
        data = f"worker.data_dir={self.folder / name}"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*self.command("streams", "worker"), "--set", data, *extra], cwd=ROOT, stdout=file, stderr=file
            )
        try:
            expected = 1 if "--agents" in extra else 2
            wait_for(
                lambda: log.read_text().count("partitions [") >= expected or process.poll() is not None, "a worker"
            )
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise


def environment(**changes: str) -> dict[str, str]:
    """The environment without the variables that point at servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINDSTREAM_")}
    return kept | changes
