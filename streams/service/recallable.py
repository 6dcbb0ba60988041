"""Wait until an item that was published is found by searches."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import numpy as np

from configs.errors import TransientError
from streams.messages.items import Item
from streams.recall.ports import ItemTable
from streams.service.problems import Problem
from streams.service.shared_producer import Written
from streams.service.threads import ThreadCalls

#: Seconds between two reads, at first and at most.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5


class RecallableItems:
    """Observes the rows of the index, which the item worker writes.

    Args:
        index: the model's collection.
        calls: threads in which it is read.
        timeout_s: seconds to wait for an item.
    """

    def __init__(self, index: ItemTable, calls: ThreadCalls, timeout_s: float) -> None:
        self._index = index
        self._calls = calls
        self._timeout_s = timeout_s

    async def wait(self, item: Item, written: Written) -> float | None:
        """Wait until searches find the item with this vector, or a later message has replaced it.

        Returns:
            Seconds that this took; None = not within the time, for example because no item worker runs.
        """
        started = time.monotonic()
        wait_s = _FIRST_WAIT_S
        while (passed_s := time.monotonic() - started) < self._timeout_s:
            with suppress(TransientError, Problem):  # Milvus may be available again in time, and its threads free
                if await self._calls.call(lambda: self._found(item, written), self._timeout_s - passed_s):
                    return time.monotonic() - started
            await asyncio.sleep(min(wait_s, max(0.0, self._timeout_s - passed_s)))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        return None

    def _found(self, item: Item, written: Written) -> bool:
        ids = np.array([item.item_id], dtype=np.int64)
        # With the consistency of a search: what is found so is found by searches, too.
        vector = self._index.get(ids).get(item.item_id)
        if vector is not None and np.array_equal(vector, item.embedding):
            return True
        source = self._index.sources(ids).get(item.item_id)
        # Offsets of different partitions cannot be compared.
        return source is not None and source[0] == written.partition and source[1] > written.offset
