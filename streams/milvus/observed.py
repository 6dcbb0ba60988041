"""An item index that records whether Milvus answers, and how many items it has counted since the last fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

import numpy as np

from configs.errors import MindstreamError
from model.arrays import FloatArray, IdArray, IdVector, IntMatrix, IntVector
from streams.errors import RefusedData
from streams.recall.ports import IndexInfo, ItemTable

_T = TypeVar("_T")


class ObservedIndex:
    """An `ItemTable` that records whether its last request succeeded, and the last count.

    Safe to use from several threads.

    Args:
        index: handles the requests.
        max_age_s: seconds after which an answer no longer proves that Milvus is available.
        clock: monotonic seconds.
    """

    def __init__(self, index: ItemTable, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._max_age_s = max_age_s
        self._clock = clock
        self._last_result_at = clock()
        self._fault: str | None = None
        self._lock = threading.Lock()
        self._faults = 0
        self._count: tuple[int, int] | None = None  # the number of faults when it was counted, and the count

    @property
    def counted(self) -> int | None:
        """See `streams.recall.verified.CountedIndex.counted`."""
        count = self._count
        return count[1] if count is not None and count[0] == self._faults else None

    @property
    def fault(self) -> str | None:
        """Error of the last request, or that there has been no answer for too long; None = Milvus is available."""
        if self._fault is None and self.age_s > self._max_age_s:
            return f"no answer for {self.age_s:.0f} s"
        return self._fault

    @property
    def age_s(self) -> float:
        """Seconds since the last answer or error."""
        return self._clock() - self._last_result_at

    def ping(self) -> None:
        """Send a small request to find out whether Milvus is available."""
        with suppress(MindstreamError):  # recorded
            self.get(np.zeros(1, dtype=np.int64))  # 0 is padding: there is no such item

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        return self._observed(lambda: self._index.search(queries, limit))

    def upsert(self, ids: IdArray, vectors: FloatArray, sources: IntMatrix | None = None) -> None:
        self._observed(lambda: self._index.upsert(ids, vectors, sources))

    def delete(self, ids: IdArray) -> None:
        self._observed(lambda: self._index.delete(ids))

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        return self._observed(lambda: self._index.get(ids))

    def seal(self) -> None:
        self._index.seal()  # not recorded: a healthy Milvus rejects it when asked too often

    def describe(self) -> IndexInfo:
        faults = self._faults  # a fault while it is counted outdates the count
        info = self._observed(self._index.describe)
        self._count = faults, info.count
        return info

    @property
    def identity(self) -> str:
        return self._index.identity

    def check_identity(self) -> None:
        self._index.check_identity()

    def bind(self, topic: str, topic_id: str) -> None:
        self._observed(lambda: self._index.bind(topic, topic_id))

    def sources(self, ids: IdArray) -> Mapping[int, tuple[int, int]]:
        return self._observed(lambda: self._index.sources(ids))

    def rows(self, partition: int) -> Iterator[tuple[IdVector, IntVector]]:
        return self._index.rows(partition)  # not recorded: read in another thread, through a connection of its own

    def _observed(self, call: Callable[[], _T]) -> _T:
        try:
            result = call()
        except RefusedData:  # an answer, too
            self._fault, self._last_result_at = None, self._clock()
            raise
        except MindstreamError as error:
            with self._lock:
                self._faults += 1
            self._fault, self._last_result_at = str(error), self._clock()
            raise
        self._fault, self._last_result_at = None, self._clock()
        return result
