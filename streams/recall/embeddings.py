"""Embeddings of the items in users' histories: the model's own matrix first, then items published after training."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from streams.recall.ports import FloatArray, IdArray, ItemIndex, KnownItems


class HistoryEmbeddings:
    """Looks up embeddings by item id.

    An item that the model never saw has the vector it was published with, read from the index and cached. An id that
    nobody knows is remembered as unknown for a short while only: its vector may arrive at any moment.

    Args:
        known: the items that the model was trained on.
        index: where the vectors of later items are.
        capacity: most ids in the cache, known and unknown ones together; the oldest entries leave first.
        refresh: seconds until a cached vector is read again.
        unknown_ttl: seconds for which an id counts as unknown before the index is asked again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        known: KnownItems,
        index: ItemIndex,
        *,
        capacity: int,
        refresh: float,
        unknown_ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._vectors: FloatArray = np.asarray(known.item_vectors)  # a memory map's own class makes each call slower
        self._index = index
        self._capacity = capacity
        self._refresh = refresh
        self._unknown_ttl = unknown_ttl
        self._clock = clock
        self._cache: OrderedDict[int, tuple[float, FloatArray | None]] = OrderedDict()  # id → (expiry, vector)

    def lookup(self, ids: IdArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """(n,) item ids → embeddings (n, D) float32, zeros where unknown, and (n,) whether each id is known.

        Raises:
            TransientError: the index had to be asked and did not answer.
        """
        rows = self._known.rows(ids)  # (n,)
        found = rows >= 0
        vectors = self._vectors.take(rows, axis=0, mode="clip")  # (n, D), with row 0 for what is unknown
        vectors[~found] = 0
        if not found.all():
            later = self._later_items(np.unique(ids[~found]))
            for place in np.flatnonzero(~found):
                vector = later[int(ids[place])]
                if vector is not None:
                    vectors[place] = vector
                    found[place] = True
        return vectors, found

    def _later_items(self, ids: IdArray) -> dict[int, FloatArray | None]:
        now = self._clock()
        answer: dict[int, FloatArray | None] = {}
        stale: list[int] = []
        for item_id in ids.tolist():
            expiry, vector = self._cache.get(item_id, (0.0, None))
            if expiry > now:
                answer[item_id] = vector
            else:
                stale.append(item_id)
        if stale:
            fetched = self._index.get(np.array(stale, dtype=np.int64))
            for item_id in stale:
                vector = fetched.get(item_id)
                ttl = self._unknown_ttl if vector is None else self._refresh
                self._cache.pop(item_id, None)
                self._cache[item_id] = (now + ttl, vector)
                answer[item_id] = vector
            while len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        return answer
