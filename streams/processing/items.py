"""The processing of a batch of item messages: validate, upsert into or delete from the index, acknowledge.

Upserts and deletes are idempotent, so processing a batch again after a crash changes nothing. The messages of one item
stay in order: the last one in the batch wins. Each row names its message. Milvus cannot tell an older vector from a
newer one: before each write, the agent must hold a lease for the partitions (`streams/DELIVERY.md`, *Items*). Items of
another model version are skipped and counted: their vectors cannot be compared with this version's, and the item
worker of that version reads the topic itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import TransientError
from model.arrays import FloatVector
from streams.errors import BadMessage, RefusedData
from streams.messages.dead_letters import DeadLetterTopic
from streams.messages.items import Item
from streams.metrics import ItemMetrics
from streams.ports import DeadLetter, Message, RecordProducer
from streams.processing.dead_letters import DeadLetters
from streams.processing.item_decoder import ItemDecoder
from streams.processing.item_repair import RecentRemovals
from streams.recall.ports import ItemIndex

_LOG = logging.getLogger("mindstream.items")

#: Upserts after which the index is sealed, once the topic is quiet. Comparing this many rows one by one costs a search
#: about as much as the graph does. Each seal leaves a segment, and there should be few segments.
SEAL_AFTER_UPSERTS = 2_000
#: Upserts after which the index is sealed even if more are arriving: by then they cost a search 8 ms on two cores.
MAX_UNSEALED_UPSERTS = 10_000


@dataclass(frozen=True, slots=True)
class PendingItems:
    """A batch of item messages; there is nothing to wait for."""

    messages: Sequence[Message]

    def wait(self) -> None:
        """See `streams.ports.PendingBatch.wait`."""


class ItemProcessor:
    """The `BatchProcessor` of item messages. One batch at a time.

    Args:
        index: the index of the model's items.
        producer: sends dead letters.
        dead_letters: the topic that keeps them.
        decoder: decodes the messages.
        require_lease: raises TransientError when the messages may belong to another worker by now.
        metrics: counters.
        clock: seconds since 1970.

    Attributes:
        removals: the items removed last.
    """

    def __init__(
        self,
        index: ItemIndex,
        producer: RecordProducer,
        *,
        dead_letters: DeadLetterTopic,
        decoder: ItemDecoder,
        require_lease: Callable[[], None],
        metrics: ItemMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.removals = RecentRemovals()
        self._index = index
        self._producer = producer
        self._dead_letters = DeadLetters(dead_letters, metrics)
        self._decoder = decoder
        self._require_lease = require_lease
        self._metrics = metrics
        self._clock = clock
        self._unsealed = 0  # upserts since the last seal
        self._seen_unsealed = 0  # value of `_unsealed` at the last call of `seal_when_due`

    def start(self, messages: Sequence[Message], after: PendingItems | None = None) -> PendingItems:  # noqa: ARG002
        """Return the batch as it is: all its work changes the index. See `streams.ports.BatchProcessor.start`."""
        return PendingItems(messages)

    def finish(self, pending: PendingItems) -> None:
        """Bring the index to the state after the last message. See `streams.ports.BatchProcessor.finish`.

        Raises:
            TransientError: Milvus or Kafka did not respond, or the lease expired; start the batch again.
        """
        newest: dict[int, tuple[FloatVector | None, Message]] = {}  # item id → (vector or None = removed, its message)
        dead_letters: list[DeadLetter] = []
        other_versions = 0
        for message in pending.messages:
            try:
                item = self._decoder.decode(message)
            except BadMessage as error:
                dead_letters.append(DeadLetter(message, error.reason, error.detail))
                continue
            if item is None:
                other_versions += 1
                continue
            newest[item.item_id] = (item.embedding if isinstance(item, Item) else None), message

        upserts = {item_id: (vector, m) for item_id, (vector, m) in newest.items() if vector is not None}
        removals = {item_id: message for item_id, (vector, message) in newest.items() if vector is None}
        if upserts:
            self._require_lease()
            self._index.upsert(
                np.array(list(upserts), dtype=np.int64),
                np.stack([vector for vector, _ in upserts.values()]),
                np.array([(message.partition, message.offset) for _, message in upserts.values()], dtype=np.int64),
            )
            now = self._clock()
            for _, message in upserts.values():
                if message.timestamp > 0:
                    self._metrics.freshness.observe(max(0.0, now - message.timestamp))
        if removals:
            self._require_lease()
            self._index.delete(np.array(list(removals), dtype=np.int64))
            for item_id, message in removals.items():
                self.removals.add(item_id, message.partition, message.offset)
        if dead_letters:
            self._producer.send(self._dead_letters.outputs(dead_letters, self._clock()))

        self._unsealed += len(upserts)
        self._metrics.upserts.inc(len(upserts))
        self._metrics.removals.inc(len(removals))
        self._metrics.other_versions.inc(other_versions)
        self._dead_letters.count(dead_letters)

    def refuse(self, message: Message, error: RefusedData) -> None:
        """Send the message to the dead-letter topic. See `streams.ports.BatchProcessor.refuse`."""
        dead_letter = DeadLetter(message, "refused", error.detail)
        self._producer.send(self._dead_letters.outputs([dead_letter], self._clock()))
        self._dead_letters.count([dead_letter])

    def seal_when_due(self) -> None:
        """Seal the index after a bulk load, or when too many upserts have accumulated.

        The items are in the index already: a failure costs speed, and the next call tries again.
        """
        quiet, self._seen_unsealed = self._unsealed == self._seen_unsealed, self._unsealed
        if self._unsealed < (SEAL_AFTER_UPSERTS if quiet else MAX_UNSEALED_UPSERTS):
            return
        try:
            self._index.seal()
        except TransientError as error:
            _LOG.warning("the index was not sealed, searches stay slower: %s", error)
        else:
            _LOG.info("sealed the index after %d upserts", self._unsealed)
            self._unsealed = self._seen_unsealed = 0
