"""An item index that remembers whether Milvus answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import numpy as np

from configs.errors import MindstreamError
from model.arrays import FloatArray, IdArray
from streams.recall.ports import IndexInfo, ItemIndex

_T = TypeVar("_T")


class ObservedIndex:
    """An `ItemIndex` that remembers whether it answered the last time.

    Args:
        inner: does the work.
        patience: seconds after which an answer proves nothing any more.
        clock: seconds, monotonic.
    """

    def __init__(self, inner: ItemIndex, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._patience = patience
        self._clock = clock
        self._answered = clock()
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """What is wrong with Milvus; None = it answered lately."""
        if self._fault is None and self.age > self._patience:
            return f"no answer for {self.age:.0f} s"
        return self._fault

    @property
    def age(self) -> float:
        """Seconds since the last answer, or the last fault."""
        return self._clock() - self._answered

    def ping(self) -> None:
        """Ask for something small, to find out whether Milvus is there."""
        with suppress(MindstreamError):  # remembered
            self.get(np.zeros(1, dtype=np.int64))  # 0 is padding: there is no such item

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        return self._observed(lambda: self._inner.search(queries, limit))

    def upsert(self, ids: IdArray, vectors: FloatArray) -> None:
        self._observed(lambda: self._inner.upsert(ids, vectors))

    def delete(self, ids: IdArray) -> None:
        self._observed(lambda: self._inner.delete(ids))

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        return self._observed(lambda: self._inner.get(ids))

    def seal(self) -> None:
        self._inner.seal()  # may be refused by a Milvus that is well: it was asked too often

    def describe(self) -> IndexInfo:
        return self._observed(self._inner.describe)

    def _observed(self, call: Callable[[], _T]) -> _T:
        try:
            result = call()
        except MindstreamError as error:
            self._fault, self._answered = str(error), self._clock()
            raise
        self._fault, self._answered = None, self._clock()
        return result
