"""Publishes new items while clicks flow, and measures until a search finds them."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import numpy as np

from configs.schema import WorkerConfig
from embedded.scoreboard import Scoreboard
from model.artifact import Artifact
from streams.errors import TransientError
from streams.kafka import KafkaOutbox
from streams.messages import FloatVector, Item, encode_item
from streams.milvus import MilvusIndex
from streams.ports import Output

#: Seconds between two looks whether the new item is found.
_POLL = 0.01
#: Seconds after which an item counts as not searchable; it is recorded with that time.
_GIVE_UP = 10.0


class FreshnessProbe:
    """A thread that publishes an item every few seconds and searches for it until it is found.

    Each new item has the vector of a popular item with a little noise, as a new edition would have.

    Args:
        config: names the servers and topics.
        artifact: the model whose space the items live in.
        board: where the times go.
        every: seconds between two items.
        seed: of the choice of items.
    """

    def __init__(
        self, config: WorkerConfig, artifact: Artifact, board: Scoreboard, *, every: float, seed: int = 0
    ) -> None:
        self._config = config
        self._artifact = artifact
        self._board = board
        self._every = every
        self._rng = np.random.default_rng(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)
        self._index = MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create=False)
        self._outbox = KafkaOutbox(config.kafka, config.topics.max_message_bytes)
        self._next_id = int(artifact.item_ids.max()) + 1

    def __enter__(self) -> FreshnessProbe:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=_GIVE_UP)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._board.searchable.append(self.publish_one())

    def publish_one(self) -> float:
        """Publish one new item; seconds from the moment before sending until a search finds it."""
        item_id, vector = self._next_id, self._vector()
        self._next_id += 1
        item = Item(item_id, vector, self._artifact.model_version)
        published = time.time()
        self._board.published(item_id, published)
        self._outbox.send([Output(self._config.topics.items, str(item_id).encode(), encode_item(item))])
        while time.time() - published < _GIVE_UP:
            try:
                ids, _ = self._index.search(vector[None, :], 10)
            except TransientError:
                continue
            if item_id in ids[0]:
                return time.time() - published
            time.sleep(_POLL)
        return _GIVE_UP

    def _vector(self) -> FloatVector:  # (D,)
        best = np.argsort(-self._artifact.item_counts, kind="stable")[:200]
        near = self._artifact.item_vectors[self._rng.choice(best)]
        noisy = near + self._rng.normal(0, 0.02, near.shape) * np.linalg.norm(near)
        vector: FloatVector = (noisy * (np.linalg.norm(near) / np.linalg.norm(noisy))).astype(np.float32)
        return vector
