"""New items for measurements of freshness: published through Kafka, then searched for until they are found."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from configs.errors import TransientError
from configs.schema import WorkerConfig
from model.arrays import FloatVector
from model.artifact import Artifact
from streams.kafka.producer import KafkaRecordProducer
from streams.messages.items import Item, encode_item
from streams.milvus.index import MilvusIndex
from streams.ports import Output

#: Seconds between two searches for a new item: the resolution of the measurement.
_POLL_S = 0.01
#: Seconds after which an item counts as not searchable; it is recorded with that time.
FIND_TIMEOUT_S = 10.0
#: New items resemble one of this many most clicked items.
_POPULAR = 200


class NewItems:
    """Publishes items and searches for each of them until it is found.

    Each new item has the vector of a popular item with a little noise, as a new edition would have. The search is
    the worker's, with Milvus' consistency level Bounded, so that what it finds is what users would get.

    Args:
        config: names the servers and topics.
        artifact: the model in whose vector space the items are.
        seed: of the choice of items.
        on_published: called with the id of each item and the time when it was sent, in seconds since 1970.

    Raises:
        TransientError, FatalError: Milvus is unavailable, or has no collection of this model.
    """

    def __init__(
        self,
        config: WorkerConfig,
        artifact: Artifact,
        *,
        seed: int = 0,
        on_published: Callable[[int, float], None] = lambda _item, _at: None,
    ) -> None:
        self._topic = config.topics.items
        self._artifact = artifact
        self._popular = np.argsort(-artifact.item_counts, kind="stable")[:_POPULAR]
        self._rng = np.random.default_rng(seed)
        self._on_published = on_published
        self._index = MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create=False)
        self._producer = KafkaRecordProducer(config.kafka, config.topics.max_message_bytes, config.topics.partitioner)
        self._next_id = int(artifact.item_ids.max()) + 1

    def publish_one(self) -> float:
        """Publish one new item and return the seconds until a search finds it, at most `FIND_TIMEOUT_S`."""
        begin = time.monotonic()
        return self.await_found(*self.publish(), begin)

    def publish(self) -> tuple[int, FloatVector]:
        """Publish one new item and return its id and vector when Kafka has acknowledged it. For one thread only."""
        item_id, vector = self._next_id, self._vector()
        self._next_id += 1
        message = Output(
            self._topic, str(item_id).encode(), encode_item(Item(item_id, vector, self._artifact.model_version))
        )
        self._on_published(item_id, time.time())
        self._producer.send([message])
        return item_id, vector

    def await_found(self, item_id: int, vector: FloatVector, since: float) -> float:
        """Return the seconds from `since` (`time.monotonic`) until a search finds the item, at most `FIND_TIMEOUT_S`.

        Thread-safe.
        """
        while (waited := time.monotonic() - since) < FIND_TIMEOUT_S:
            try:
                ids, _ = self._index.search(vector[None, :], 10)
            except TransientError:
                time.sleep(_POLL_S)
                continue
            if item_id in ids[0]:
                return time.monotonic() - since
            time.sleep(_POLL_S)
        return min(waited, FIND_TIMEOUT_S)

    def close(self) -> None:
        self._index.close()

    def _vector(self) -> FloatVector:  # (D,)
        near = self._artifact.item_vectors[self._rng.choice(self._popular)]
        noisy = near + self._rng.normal(0, 0.02, near.shape) * np.linalg.norm(near)
        vector: FloatVector = (noisy * (np.linalg.norm(near) / np.linalg.norm(noisy))).astype(np.float32)
        return vector
