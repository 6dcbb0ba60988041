"""Embeddings of the items in users' histories: the model's own matrix first, then items published after training."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model.arrays import FloatArray, IdArray
from streams.recall.ports import ItemIndex, KnownItems


class HistoryEmbeddings:
    """Looks up embeddings by item id.

    The embedding of an item published after training is the vector that it was published with, read from the index and
    cached. An id that the index does not have either is cached as unknown, but only briefly: its vector may arrive at
    any moment.

    Args:
        known: the items that the model was trained on.
        index: has the vectors of items published after training.
        capacity: largest number of ids in the cache, known and unknown together; the oldest entries are evicted first.
        refresh_s: seconds until a cached vector is read again.
        unknown_ttl_s: seconds for which an id counts as unknown before it is looked up again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        known: KnownItems,
        index: ItemIndex,
        *,
        capacity: int,
        refresh_s: float,
        unknown_ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._vectors: FloatArray = np.asarray(known.item_vectors)  # calls on a numpy.memmap are slower
        self._index = index
        self._capacity = capacity
        self._refresh_s = refresh_s
        self._unknown_ttl_s = unknown_ttl_s
        self._clock = clock
        self._cache: OrderedDict[int, tuple[float, FloatArray | None]] = OrderedDict()  # id → (expiry, vector)

    def lookup(self, ids: IdArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Return the embeddings of (n,) item ids, (n, D) float32, and for each id, (n,), whether it is known.

        Embeddings of unknown ids are zeros.

        Raises:
            TransientError: an id had to be looked up in the index, which is unavailable.
        """
        rows = self._known.rows(ids)  # (n,)
        found = rows >= 0
        vectors = self._vectors.take(rows, axis=0, mode="clip")  # (n, D), row 0 for unknown ids
        vectors[~found] = 0
        if not found.all():
            new_vectors = self._new_items(np.unique(ids[~found]))
            for row in np.flatnonzero(~found):
                vector = new_vectors[int(ids[row])]
                if vector is not None:
                    vectors[row] = vector
                    found[row] = True
        return vectors, found

    def _new_items(self, ids: IdArray) -> dict[int, FloatArray | None]:
        """Look up items published after training: the cache, then one request to the index; None for unknown ids."""
        now = self._clock()
        vectors: dict[int, FloatArray | None] = {}
        stale: list[int] = []
        for item_id in ids.tolist():
            expiry, vector = self._cache.get(item_id, (0.0, None))
            if expiry > now:
                vectors[item_id] = vector
            else:
                stale.append(item_id)
        if stale:
            fetched = self._index.get(np.array(stale, dtype=np.int64))
            for item_id in stale:
                vector = fetched.get(item_id)
                ttl_s = self._unknown_ttl_s if vector is None else self._refresh_s
                self._cache.pop(item_id, None)
                self._cache[item_id] = (now + ttl_s, vector)
                vectors[item_id] = vector
            while len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        return vectors
