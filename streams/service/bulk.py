"""Publish all items of the model, and remove all items of its collection, through the topic `items`.

Both write messages, as everybody does who is not the item worker, and wait until it has processed them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import numpy as np

from configs.errors import MindstreamError, TransientError
from model.arrays import IdVector
from model.serving.norms import Norms
from streams.processing.item_comparison import Content, NewestMessages
from streams.processing.item_messages import ItemSource, check_items, item_messages, removal_messages
from streams.recall.ports import ItemTable
from streams.service.items_topic import ItemProgress, ItemsTopic

_LOG = logging.getLogger("mindstream.service")

#: Seconds between two checks of what the item worker has processed, and between two log lines.
_POLL_INTERVAL_S, _LOG_INTERVAL_S = 0.25, 5.0


class BulkRunning(MindstreamError):  # noqa: N818 - a state, not a failure
    """All items are being published or removed already."""


class OtherModelsItems(MindstreamError):  # noqa: N818 - what was found
    """Items cannot be removed: their newest messages are of another model, which would lose them, too."""


class ItemsMissing(MindstreamError):  # noqa: N818 - what was found
    """The item worker has not put all items into the collection, or not yet. The message says how many are there."""


class BulkItems:
    """Publishes and removes all items, one call at a time.

    Args:
        source: the model's items.
        norms: the norms that their vectors may have.
        index: the model's collection.
        topic: connects to the topic, once for each call.
        partitions: number of its partitions.
        timeout_s: seconds to wait for the item worker.
        stopping: set when the process has to end: a call then ends, and says how far it got.
    """

    def __init__(
        self,
        source: ItemSource,
        norms: Norms,
        index: ItemTable,
        topic: Callable[[], ItemsTopic],
        partitions: int,
        timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        self._source = source
        self._norms = norms
        self._index = index
        self._topic = topic
        self._partitions = partitions
        self._timeout_s = timeout_s
        self._running = threading.Lock()
        self._stopping = stopping

    def insert(self) -> int:
        """Publish all items of the model; return their number when searches find them.

        Raises:
            BulkRunning: the same is being done already, or the opposite.
            BadMessage: the item worker would refuse the items.
            TransientError: Kafka or Milvus is unavailable.
            ItemsMissing: not all of them are in the collection in time, or the process has to end.
        """
        with self._exclusively() as topic:
            check_items(self._source, self._norms)
            items = len(self._source.item_ids)
            before = topic.progress.ends()
            every = _Every(_LOG_INTERVAL_S)
            sent = 0
            for chunk in topic.send(item_messages(self._source)):
                sent += chunk
                if every.due() or sent == items:
                    _LOG.info("insert_data: %d of %d items are published", sent, items)
                self._check_stopping(sent, items, "published")
            self._await_processed(topic.progress, before, "insert_data")
            # Not the count of the collection, which holds items that were published later, too.
            rows = len(self._index.sources(self._source.item_ids))
            if rows < items:
                raise ItemsMissing(
                    f"the item worker has processed all {items} items, but the collection holds {rows} of them: it has "
                    "refused some (python -m streams deadletters list --topic items), or they were removed meanwhile"
                )
            _LOG.info("insert_data: all %d items can be recalled", items)
            return items

    def remove_all(self) -> int:
        """Remove all items of the collection, and those that would be written into it; return their number.

        Raises:
            BulkRunning: the same is being done already, or the opposite.
            OtherModelsItems: another model would lose items.
            TransientError: Kafka or Milvus is unavailable.
            ItemsMissing: the item worker has not removed all of them in time, or the process has to end.
        """
        with self._exclusively() as topic:
            # Of the topic, too: the item worker may not have processed all of it, and rewrites rows that are missing.
            newest = topic.newest(self._source.model_version)
            rows = {p: self._rows(p) for p in (-1, *range(self._partitions))}
            self._check_other_versions(newest, rows)
            before = topic.progress.ends()
            ids = {p: np.union1d(of_rows, _ids(newest.get(p), Content.VECTOR)) for p, of_rows in rows.items()}
            items, removed = sum(map(len, ids.values())), 0
            for partition, of_partition in ids.items():
                messages = removal_messages(of_partition.tolist())
                # -1: no message wrote the rows.
                for chunk in topic.send(messages, None if partition < 0 else partition):
                    removed += chunk
                    self._check_stopping(removed, items, "removed")
            _LOG.info("drop: %d items are to be removed", removed)
            self._await_processed(topic.progress, before, "drop")
            _LOG.info("drop: %d items were removed; the collection holds %d", removed, self._index.describe().count)
            return removed

    def _rows(self, partition: int) -> IdVector:
        pages = [ids for ids, _ in self._index.rows(partition)]
        return np.concatenate(pages) if pages else np.empty(0, dtype=np.int64)

    def _check_other_versions(self, newest: Mapping[int, NewestMessages], rows: Mapping[int, IdVector]) -> None:
        others = sum(
            int(np.isin(of_rows, _ids(newest.get(partition), Content.OTHER_VERSION)).sum())
            for partition, of_rows in rows.items()
        )
        if others:
            raise OtherModelsItems(
                f"{others} items of this collection were published for another model since, and would be removed from "
                "that model, too; to drop the collection of a former model, see streams/OPERATIONS.md, New model"
            )

    def _check_stopping(self, written: int, items: int, done: str) -> None:
        """Raise ItemsMissing if the process has to end before all messages are written."""
        if self._stopping.is_set() and written < items:
            raise ItemsMissing(
                f"this service is being stopped: messages for {written} of {items} items are written, which will be "
                f"{done}; call again for the others"
            )

    def _await_processed(self, progress: ItemProgress, before: Mapping[int, int], name: str) -> None:
        """Wait until the item worker has processed what was written since."""
        ends = {p: end for p, end in progress.ends().items() if end > before.get(p, 0)}
        every, deadline, fault = _Every(_LOG_INTERVAL_S), time.monotonic() + self._timeout_s, ""
        left = sum(ends[p] - before.get(p, 0) for p in ends)
        while left:
            if time.monotonic() >= deadline or self._stopping.wait(_POLL_INTERVAL_S):
                raise ItemsMissing(self._unfinished(left, fault))
            try:
                processed = progress.processed()
            except TransientError as error:
                fault = f"; {error}"
                continue
            left, fault = sum(max(0, end - processed.get(p, 0)) for p, end in ends.items()), ""
            if every.due():
                _LOG.info("%s: the item worker has %d messages left to process", name, left)

    def _unfinished(self, left: int, fault: str) -> str:
        waited = "this service is being stopped" if self._stopping.is_set() else f"waited {self._timeout_s:g} s"
        try:
            rows = f"{self._index.describe().count} items"
        except TransientError as error:
            rows = f"an unknown number of items ({error})"
        return (
            f"{waited}, the collection holds {rows}, and the item worker has about {left} messages left to process"
            f"{fault}. All messages are written, and it will process them: ask for the count again later, or start an "
            "item worker (python -m streams worker --agents items) if none runs"
        )

    @contextmanager
    def _exclusively(self) -> Iterator[ItemsTopic]:
        if not self._running.acquire(blocking=False):
            raise BulkRunning("items are being inserted or dropped already: call again when that is done")
        try:
            topic = self._topic()
            with closing(topic.progress):
                yield topic
        finally:
            self._running.release()


class _Every:
    """Says when something that is repeated is due; not at once.

    Args:
        interval_s: seconds between two times.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_at = time.monotonic() + interval_s

    def due(self) -> bool:
        if time.monotonic() < self._next_at:
            return False
        self._next_at = time.monotonic() + self._interval_s
        return True


def _ids(newest: NewestMessages | None, content: Content) -> IdVector:
    """Return the items whose newest message has this content."""
    if newest is None:
        return np.empty(0, dtype=np.int64)
    ids, _, contents = newest.columns()
    found: IdVector = ids[contents == content]
    return found
