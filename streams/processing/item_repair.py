"""Rewrites and deletes rows of the item index that differ from the topic.

Comparing takes a while (`streams.processing.item_comparison`), so each row is read again first: it is changed only if
it still is older than the message that was compared. A missing row does not say when it was removed, so removals are
remembered (`RecentRemovals`). A row that names another partition of the topic is left to that
partition: if an item's messages are in two partitions, the message processed last decides, and the two never undo each
other's work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import FloatVector
from streams.errors import BadMessage, RefusedData
from streams.messages.items import Item, ItemRemoval
from streams.metrics import REPAIRS, ItemMetrics
from streams.ports import Message
from streams.recall.ports import ItemTable

_LOG = logging.getLogger("mindstream.items")

#: Most removals that are remembered; far more than are processed while a comparison lasts.
_MAX_REMOVALS = 100_000


class RecentRemovals:
    """The items that were removed last, and the messages that did it. For the batch thread.

    Args:
        capacity: most items that are remembered; the oldest removals are forgotten first.
    """

    def __init__(self, capacity: int = _MAX_REMOVALS) -> None:
        self._capacity = capacity
        self._sources: dict[int, tuple[int, int]] = {}  # item id → (partition, offset), the newest last

    def add(self, item_id: int, partition: int, offset: int) -> None:
        """Remember that the message at this offset removed the item."""
        self._sources.pop(item_id, None)
        self._sources[item_id] = partition, offset
        if len(self._sources) > self._capacity:
            del self._sources[next(iter(self._sources))]

    def since(self, item_id: int, partition: int, offset: int) -> bool:
        """Return whether a later message of the partition than this one is known to have removed the item."""
        removed_in, removed_at = self._sources.get(item_id, (partition, -1))
        return removed_in == partition and removed_at > offset


@dataclass(frozen=True, slots=True)
class Suspects:
    """Items of one partition whose rows seem to differ from the topic.

    Attributes:
        partition: number of the partition.
        messages: the newest messages of items whose row seems older, or is missing.
        removed: item id → offset: a row from before this offset should not exist.
    """

    partition: int
    messages: Sequence[Message]
    removed: Mapping[int, int]


class ItemRepairer:
    """Repairs the rows of partitions that this process owns. For the batch thread, the only writer of these rows.

    Args:
        index: the index to repair.
        decode: returns the item of a message, or None if it belongs to another model version; raises BadMessage.
        removals: what the batch thread has removed.
        metrics: counters.
    """

    def __init__(
        self,
        index: ItemTable,
        decode: Callable[[Message], Item | ItemRemoval | None],
        removals: RecentRemovals,
        metrics: ItemMetrics,
    ) -> None:
        self._index = index
        self._decode = decode
        self._removals = removals
        self._metrics = metrics

    def repair(self, suspects: Suspects) -> None:
        """Repair those rows that still differ.

        Raises:
            TransientError: Milvus did not respond; call again.
        """
        vectors = self._vectors(suspects.messages)
        held = self._index.sources(np.array([*vectors, *suspects.removed], dtype=np.int64))

        def older(item_id: int, offset: int, *partitions: int) -> bool:
            return held[item_id][0] in partitions and held[item_id][1] < offset

        added = [
            i for i, (o, _) in vectors.items() if i not in held and not self._removals.since(i, suspects.partition, o)
        ]
        # -1: no message wrote the row.
        rewritten = [i for i, (o, _) in vectors.items() if i in held and older(i, o, suspects.partition, -1)]
        deleted = [i for i, o in suspects.removed.items() if i in held and older(i, o, suspects.partition)]
        refused = self._upsert(suspects.partition, {i: vectors[i] for i in added + rewritten})
        if deleted:
            self._index.delete(np.array(deleted, dtype=np.int64))

        counts = len(set(added) - refused), len(set(rewritten) - refused), len(deleted)
        for kind, count in zip(REPAIRS, counts, strict=True):
            self._metrics.repaired.labels(kind).inc(count)
        if any(counts):
            _LOG.warning(
                "items of partition %d differed from their newest messages: %d rows added, %d rewritten, %d deleted",
                suspects.partition,
                *counts,
            )

    def _vectors(self, messages: Sequence[Message]) -> dict[int, tuple[int, FloatVector]]:
        """Return item id → (offset, vector) of those messages that have a vector of this model version."""
        found: dict[int, tuple[int, FloatVector]] = {}
        for message in messages:
            try:
                item = self._decode(message)
            except BadMessage:
                continue  # it became a dead letter when it was processed
            if isinstance(item, Item):
                found[item.item_id] = message.offset, item.embedding
        return found

    def _upsert(self, partition: int, rows: Mapping[int, tuple[int, FloatVector]]) -> set[int]:
        """Write rows; return the ids of those whose data the index refuses: their messages are dead letters."""
        if not rows:
            return set()
        ids = np.array(list(rows), dtype=np.int64)
        sources = np.array([(partition, offset) for offset, _ in rows.values()], dtype=np.int64)
        try:
            self._index.upsert(ids, np.stack([vector for _, vector in rows.values()]), sources)
        except RefusedData:
            if len(rows) == 1:
                return set(rows)
            return set().union(*(self._upsert(partition, {item_id: row}) for item_id, row in rows.items()))
        return set()
