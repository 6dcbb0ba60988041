"""A deployment on shared servers for tests of the whole path: topics, artifact, collection, worker processes."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from benchmarks.harness.data import random_artifact
from configs.errors import TransientError
from embedded.deployment import WORKER, Deployment
from embedded.instance import CHECKOUT
from embedded.program import WorkerProgram
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import read_to_end
from streams.kafka.topics import DEAD_LETTER_HEADER_BYTES
from streams.messages.clicks import Click, encode_click, user_key
from streams.messages.items import Item, encode_item
from streams.messages.recommendations import Recommendation, decode_recommendation
from streams.milvus.index import MilvusIndex
from streams.ports import Message, Output

#: Seconds within which a condition becomes true, even on a busy machine.
WAIT_TIMEOUT_S = 90.0
#: Each site has a model of its own: the sites of a process share a Milvus, and a collection belongs to one model.
_SEEDS = itertools.count()


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = WAIT_TIMEOUT_S) -> None:
    """Wait until a condition is true; fail after `timeout_s`, naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)


class Site(Deployment):
    """A deployment with a random model. Its names are unique, so sites are isolated from each other.

    Args:
        folder: for model, logs and data.
        kafka, milvus: addresses of the servers.
        items: number of the model's items; their ids start at 1.
        partitions: number of partitions of the click topic.
        settings: more configuration keys.
        environ: as for `Deployment`; the test's own clients use its credentials, too.
    """

    def __init__(
        self,
        folder: Path,
        kafka: str,
        milvus: str,
        *,
        items: int = 300,
        partitions: int = 4,
        settings: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.artifact = random_artifact(folder / "artifact", items, dim=16, seed=next(_SEEDS))
        shared = {
            "kafka.bootstrap_servers": kafka,
            "milvus.uri": milvus,
            "model.artifact": self.artifact.path,
            "worker.commit_interval": 0.2,
            "topics.partitions": partitions,
            "topics.item_partitions": 2,
            "milvus.hnsw_ef": 1000,
        }
        name = f"t{uuid.uuid4().hex[:8]}"
        super().__init__(folder, shared | dict(settings or {}), name=name, environ=environ or {})
        self.producer = KafkaRecordProducer(
            self.config.kafka,
            self.config.topics.max_message_bytes + DEAD_LETTER_HEADER_BYTES,
            self.config.topics.partitioner,
        )

    def index(self, *, create: bool = False) -> MilvusIndex:
        return MilvusIndex(self.config.milvus, self.artifact.model_version, self.artifact.dim, create=create)

    def fill_index(self) -> None:
        """Write the artifact's items into Milvus directly."""
        index = self.index(create=True)
        index.upsert(self.artifact.item_ids, np.asarray(self.artifact.item_vectors))
        wait_for(lambda: index.describe().count == len(self.artifact.item_ids), "the items in Milvus")
        index.close()

    def click(self, user: int | str, item: int) -> Output:
        """Return the message of a click at the present time."""
        value = encode_click(Click(user, item, time.time()))
        return Output(self.config.topics.clicks, user_key(user), value)

    def item(self, item_id: int, vector: np.ndarray | None, version: str | None = None) -> Output:
        """Return the message of an item, of the artifact's version unless another is given; None removes the item."""
        value = None
        if vector is not None:
            value = encode_item(Item(item_id, vector, version or self.artifact.model_version))
        return Output(self.config.topics.items, str(item_id).encode(), value)

    def drop_index(self) -> None:
        """Drop the collection; if Milvus is unavailable do nothing, because the server ends with the session."""
        with suppress(TransientError):
            index = self.index(create=True)
            index.drop()
            index.close()

    def recommendations(self) -> list[Recommendation]:
        """Return all recommendations so far."""
        return [decode_recommendation(m.value or b"") for m in self.messages(self.config.topics.recommendations)]

    def messages(self, topic: str) -> list[Message]:
        return [record.message for record in read_to_end(self.config.kafka, topic)]

    def dead_letters(self) -> list[tuple[Message, dict[str, str]]]:
        """Return dead letters with their headers as text."""
        found = read_to_end(self.config.kafka, self.config.topics.dead_letters, headers=True)
        return [(m, {name: value.decode() for name, value in headers.items()}) for m, headers, _ in found]

    def run(self, *arguments: str, sections: Collection[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the project's commands to its end; `sections` as for `command`."""
        command = self.command(*arguments, sections=sections)
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)

    @contextmanager
    def worker(self, *arguments: str, name: str = "worker", program: Sequence[str] = WORKER) -> Iterator[WorkerProgram]:
        """Run a worker in a block, as `Deployment.worker`; fail if it has to be killed at the end."""
        with super().worker(*arguments, name=name, program=program) as worker:
            try:
                yield worker
            finally:
                assert worker.stop(), f"{name} had to be killed"


def environment(**changes: str) -> dict[str, str]:
    """Return the environment with these variables, and without any others that name servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINDSTREAM_")}
    return kept | changes
