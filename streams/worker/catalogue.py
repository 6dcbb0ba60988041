"""The catalogue: whether the collection holds the model's items, without which no click can be answered well.

A click worker takes no clicks until it does, and waits before it joins its consumer group: as a member it would own
partitions that other workers, with another model or a filled collection, could serve.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from configs.errors import TransientError
from streams.errors import RestartRequired
from streams.metrics import CatalogueMetrics
from streams.recall.ports import ItemIndex
from streams.recall.verified import RequiredItems

_LOG = logging.getLogger("mindstream.worker")

#: Seconds between two counts while the start waits, and between two log lines about it.
_WAIT_INTERVAL_S, _LOG_INTERVAL_S = 1.0, 30.0
#: Seconds between two counts afterwards: while enough items are there, and while some are missing.
_RECOUNT_INTERVAL_S, _RECOUNT_MISSING_S = 60.0, 5.0


class Catalogue:
    """Counts the rows of the collection. Safe to use from several threads.

    Args:
        index: the model's collection.
        required: the items that the collection must hold.
        registry: exports both numbers.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        index: ItemIndex,
        required: RequiredItems,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._required = required
        self._metrics = CatalogueMetrics(registry)
        self._metrics.items.set(required.items)
        self._clock = clock
        self._counted_at = -math.inf
        self._rows = 0

    @property
    def missing(self) -> str | None:
        """The lack of items, with the remedy; None = it holds enough items."""
        return self._required.missing(self._rows)

    def count(self) -> int:
        """Count the rows, and return their number.

        Raises:
            TransientError, FatalError: as `streams.milvus.index.MilvusIndex.describe`.
        """
        before = self.missing
        self._rows = self._index.describe().count
        self._counted_at = self._clock()
        self._metrics.rows.set(self._rows)
        if before is None and self.missing is not None:
            _LOG.warning("not ready: %s", self.missing)
        return self._rows

    def count_when_due(self) -> None:
        """Count the rows if the last count is old. Raises as `count`."""
        interval_s = _RECOUNT_INTERVAL_S if self.missing is None else _RECOUNT_MISSING_S
        if self._clock() - self._counted_at >= interval_s:
            self.count()

    async def await_filled(self, retry_budget_s: float) -> None:
        """Wait until the collection holds enough items.

        Raises:
            RestartRequired: Milvus has not answered for `retry_budget_s` seconds.
            FatalError: the collection does not exist any more.
        """
        answered_at = self._clock()
        logged_at = -math.inf
        waited_for = self.missing
        while waited_for is not None:
            if self._clock() - logged_at >= _LOG_INTERVAL_S:
                logged_at = self._clock()
                _LOG.warning("no clicks are taken: %s", waited_for)
            await asyncio.sleep(_WAIT_INTERVAL_S)
            try:
                await asyncio.to_thread(self.count)
            except TransientError as error:
                silent_s = self._clock() - answered_at
                if silent_s >= retry_budget_s:
                    raise RestartRequired(f"{error}; retried for {silent_s:.0f} s") from None
                waited_for = str(error)
            else:
                answered_at = self._clock()
                waited_for = self.missing
        if logged_at > -math.inf:
            _LOG.info("the collection holds %s items: clicks are taken", f"{self._rows:,}")
