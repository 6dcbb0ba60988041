"""What happens to a batch of item messages: validated, then upserted into or deleted from the index, then acknowledged.

Upserts and deletes are idempotent, so a batch that is delivered again after a crash changes nothing. Messages of one
item stay in order: the last one in the batch wins. Milvus cannot tell an older vector from a newer one: the agent must
hold a lease for the partitions (`streams.agents.agent`) whenever it is told anything. Items of another model version
are passed over and counted: their vectors cannot be compared with this version's, and the item worker of that version
reads the topic itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np

from configs.errors import TransientError
from streams.errors import BadMessage
from streams.messages.dead_letters import dead_letter_output
from streams.messages.items import FloatVector, Item, ItemRemoval, decode_item
from streams.metrics import ItemMetrics
from streams.ports import DeadLetter, Message, RecordProducer
from streams.recall.ports import ItemIndex

_LOG = logging.getLogger("mindstream.items")

#: Upserts after which the index is settled, once the topic is quiet. Comparing so many rows one by one costs a search
#: about as much as the graph does; and each settling leaves a segment, of which there should be few.
SEAL_AFTER = 2_000
#: Upserts after which it is settled although more are coming: by then they take a search 8 ms on two cores.
SEAL_AT_LATEST = 10_000


class ItemProcessor:
    """Processes one batch of item messages at a time.

    Args:
        index: the index of `model_version`.
        producer: sends dead letters.
        dead_letters: topic name.
        max_letter_bytes: most bytes of key and value that a dead letter keeps.
        model_version: whose vectors the index holds.
        dim: dimension of the vectors.
        require_lease: raises TransientError when the messages may belong to another worker by now.
        metrics: counters.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        index: ItemIndex,
        producer: RecordProducer,
        *,
        dead_letters: str,
        max_letter_bytes: int,
        model_version: str,
        dim: int,
        require_lease: Callable[[], None],
        metrics: ItemMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._producer = producer
        self._dead_letters = dead_letters
        self._max_letter_bytes = max_letter_bytes
        self._model_version = model_version
        self._dim = dim
        self._require_lease = require_lease
        self._unsealed = 0
        self._tended = 0  # of them, when they were looked at last
        self._metrics = metrics
        self._clock = clock

    def process(self, messages: Sequence[Message], following: Sequence[Message] = ()) -> None:  # noqa: ARG002
        """Bring the index to the state after the last of the messages; what follows them does not matter.

        Raises:
            TransientError: Milvus or Kafka did not answer, or the lease ran out; call again with the same messages.
        """
        newest: dict[int, tuple[FloatVector | None, float]] = {}  # item id → vector, None = removed, and time stamp
        dead: list[DeadLetter] = []
        others = 0
        for message in messages:
            try:
                item = self._decode(message)
            except BadMessage as error:
                dead.append(DeadLetter(message, error.reason, error.detail))
                continue
            if isinstance(item, Item) and item.model_version != self._model_version:
                others += 1
                continue
            newest[item.item_id] = (item.embedding if isinstance(item, Item) else None), message.timestamp

        upserts = [(item_id, vector) for item_id, (vector, _) in newest.items() if vector is not None]
        removals = [item_id for item_id, (vector, _) in newest.items() if vector is None]
        if upserts:
            ids = np.array([item_id for item_id, _ in upserts], dtype=np.int64)
            stacked = np.stack([vector for _, vector in upserts])
            self._require_lease()
            self._index.upsert(ids, stacked)
            now = self._clock()
            for vector, published in newest.values():
                if vector is not None and published > 0:
                    self._metrics.freshness.observe(max(0.0, now - published))
        if removals:
            self._require_lease()
            self._index.delete(np.array(removals, dtype=np.int64))
        if dead:
            now = self._clock()
            self._producer.send(
                [dead_letter_output(self._dead_letters, letter, now, self._max_letter_bytes) for letter in dead]
            )

        self._unsealed += len(upserts)
        self._metrics.upserts.inc(len(upserts))
        self._metrics.removals.inc(len(removals))
        self._metrics.other_versions.inc(others)
        for letter in dead:
            self._metrics.dead_letters.labels(letter.reason).inc()

    def tend(self, _partitions: Collection[int]) -> None:
        """Settle the index after a bulk load, or when too much has gathered.

        The items are in the index already: a failure costs speed, and the next call tries again.
        """
        quiet, self._tended = self._unsealed == self._tended, self._unsealed
        if self._unsealed < (SEAL_AFTER if quiet else SEAL_AT_LATEST):
            return
        try:
            self._index.seal()
        except TransientError as error:
            _LOG.warning("the index was not settled, searches stay slower: %s", error)
        else:
            _LOG.info("settled the index after %d upserts", self._unsealed)
            self._unsealed = self._tended = 0

    def _decode(self, message: Message) -> Item | ItemRemoval:
        item = decode_item(message.key, message.value)
        if isinstance(item, Item) and item.model_version == self._model_version and len(item.embedding) != self._dim:
            raise BadMessage(
                "wrong_dimension",
                f"the embedding has {len(item.embedding)} numbers, model {self._model_version} has {self._dim}",
            )
        return item
