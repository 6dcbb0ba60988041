"""Compares the owned partitions of `items` with the rows of the index, in a thread of its own.

The thread only reads. What differs is handed to the batch thread, one chunk at a time: it is the only writer of these
rows (`streams/DELIVERY.md`, *Items*).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, suppress
from typing import Protocol

import numpy as np

from configs.errors import TransientError
from configs.schema import Kafka
from streams.errors import BadMessage
from streams.kafka.offsets import TopicOffsets
from streams.kafka.reading import read_to_end, watermarks
from streams.messages.items import decode_item_key
from streams.ports import Message
from streams.processing.item_comparison import ContentReader, Differences, NewestMessages, compare
from streams.processing.item_repair import Suspects
from streams.recall.ports import ItemTable

_LOG = logging.getLogger("mindstream.items")

#: Most items that are handed over at a time: the batch thread needs about half a second for them.
_CHUNK = 2000
#: Seconds until a retry after a fault.
_RETRY_S = 30.0
#: Seconds after which a read of the index sees every write, at Milvus' consistency level Bounded (5 s by default).
_STALENESS_S = 10.0


class ItemTopic:
    """The messages of `items`, compared with the rows of an index. For one thread.

    Args:
        kafka: the cluster.
        topic: name of the topic.
        group: the consumer group whose committed offsets say what is processed.
        index: the index.
        model_version: the model that the vectors in the index belong to.
    """

    def __init__(self, kafka: Kafka, topic: str, group: str, index: ItemTable, model_version: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._offsets = TopicOffsets(kafka, topic, group)
        self._index = index
        self._contents = ContentReader(model_version)

    def processed(self, partitions: Collection[int]) -> dict[int, int]:
        """Return partition → the offset before which all messages are processed.

        Raises:
            TransientError: Kafka is unavailable.
        """
        return {p: offset for p, offset in self._offsets.committed(partitions).items() if offset}

    def differences(self, partition: int, processed: int) -> Iterator[Suspects]:
        """Yield the items of a partition whose rows differ, in chunks.

        Raises:
            TransientError: Kafka or Milvus is unavailable.
        """
        pages = list(self._index.rows(partition))
        columns = np.concatenate([np.stack(page) for page in pages], axis=1) if pages else np.empty((2, 0), np.int64)
        newest, complete = self._newest(partition, processed)
        found = compare(newest, columns[0], columns[1], processed=processed, complete=complete)
        yield from self._suspects(partition, found)

    def _newest(self, partition: int, processed: int) -> tuple[NewestMessages, bool]:
        """Read the partition; also return whether it still begins at offset 0."""
        end = watermarks(self._kafka, self._topic, [partition])[partition][1]
        if end < processed:  # items of the messages after it would seem to have none, and their rows be deleted
            raise TransientError(
                "Kafka",
                f"{self._topic} [{partition}] ends at {end}, but was read up to {processed}: the broker is not up to "
                "date, or messages are lost; if it lasts, publish the items again (python -m producers.items)",
            )
        newest, start = NewestMessages(), 0
        # Twice: a message that replaced an older one, which compaction deleted before it was read here, may be after
        # the end that the first reading found.
        for _ in range(2):
            for message, _, _ in read_to_end(self._kafka, self._topic, {partition: start}):
                start = message.offset + 1
                with suppress(BadMessage):  # its key is no item's
                    newest.add(decode_item_key(message.key), message.offset, self._contents.read(message))
        # Asked last: retention may have removed messages meanwhile.
        return newest, watermarks(self._kafka, self._topic, [partition])[partition][0] == 0

    def _suspects(self, partition: int, found: Differences) -> Iterator[Suspects]:
        removed = list(found.removed.items())
        for start in range(0, max(len(removed), len(found.written)), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            messages = self._messages(partition, found.written[chunk].tolist())
            yield Suspects(partition, messages, dict(removed[chunk]))

    def _messages(self, partition: int, offsets: list[int]) -> list[Message]:
        """Return the messages at these (ascending) offsets that Kafka still has."""
        if not offsets:
            return []
        wanted, messages = set(offsets), []
        with closing(read_to_end(self._kafka, self._topic, {partition: offsets[0]})) as records:
            for message, _, _ in records:
                if message.offset in wanted:
                    messages.append(message)
                if message.offset >= offsets[-1]:
                    break
        return messages


class Comparison(Protocol):
    """`ItemTopic`, as the thread uses it."""

    def processed(self, partitions: Collection[int]) -> Mapping[int, int]: ...

    def differences(self, partition: int, processed: int) -> Iterator[Suspects]: ...


class ItemComparer:
    """A thread that compares the owned partitions: when they are acquired, once more a little later, then regularly.

    Args:
        items: what is compared.
        settle_s: seconds after which no former owner of the partitions can still be writing.
        interval_s: seconds between two comparisons.
        completed: called after each comparison of all partitions.
        staleness_s: seconds after which a read of the index sees every write.
    """

    def __init__(
        self,
        items: Comparison,
        *,
        settle_s: float,
        interval_s: float,
        completed: Callable[[], object],
        staleness_s: float = _STALENESS_S,
    ) -> None:
        self._items = items
        self._settle_s = settle_s
        self._interval_s = interval_s
        self._completed = completed
        self._staleness_s = staleness_s
        self._changed = threading.Condition()  # guards all below
        self._partitions: frozenset[int] = frozenset()
        self._acquisition = 0  # number of calls of `own`; what an older one found is discarded
        self._due: list[float] = []  # monotonic times of the next comparisons, ascending
        self._found: Suspects | None = None
        threading.Thread(target=self._run, name="item-comparer", daemon=True).start()

    def own(self, partitions: Collection[int]) -> None:
        """Compare these partitions from now on, and no others."""
        with self._changed:
            now = time.monotonic()
            self._partitions = frozenset(partitions)
            self._acquisition += 1
            self._due = [now, now + self._settle_s] if partitions else []
            self._found = None
            self._changed.notify_all()

    @property
    def found(self) -> Suspects | None:
        """The items to repair next, until `repaired` is called; None = nothing was found, for now."""
        with self._changed:
            return self._found

    def repaired(self) -> None:
        """Take the next items to repair."""
        with self._changed:
            self._found = None
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            acquisition, partitions = self._await_due()
            try:
                self._compare(acquisition, partitions)
                wait_s = self._interval_s
            except TransientError as error:
                _LOG.warning("items and rows were not compared: %s; retrying in %.0f s", error, _RETRY_S)
                wait_s = _RETRY_S
            except Exception:  # noqa: BLE001 - the end of this thread would go unnoticed, and the worker is correct
                _LOG.exception("items and rows were not compared; next try in %.0f s", self._interval_s)
                wait_s = self._interval_s
            with self._changed:
                if self._acquisition == acquisition:
                    self._due = [*self._due[1:], *([] if self._due[1:] else [time.monotonic() + wait_s])]

    def _await_due(self) -> tuple[int, frozenset[int]]:
        with self._changed:
            while not self._due or time.monotonic() < self._due[0]:
                self._changed.wait(self._due[0] - time.monotonic() if self._due else None)
            return self._acquisition, self._partitions

    def _compare(self, acquisition: int, partitions: frozenset[int]) -> None:
        processed = self._items.processed(partitions)
        if processed:
            self._wait(acquisition, self._staleness_s)  # what was processed by then is read from the index now
        for partition in sorted(processed):
            for suspects in self._items.differences(partition, processed[partition]):
                if not self._hand_over(acquisition, suspects):
                    return
            if self._acquisition != acquisition:
                return
        self._completed()

    def _wait(self, acquisition: int, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._acquisition != acquisition, seconds)

    def _hand_over(self, acquisition: int, suspects: Suspects) -> bool:
        """Wait until the batch thread has repaired these; return whether the partitions still are owned."""
        with self._changed:
            if self._acquisition == acquisition:
                self._found = suspects
            self._changed.wait_for(lambda: self._acquisition != acquisition or self._found is None)
            return self._acquisition == acquisition
