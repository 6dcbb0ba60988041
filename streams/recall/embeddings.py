"""Embeddings of the items in users' histories: the model's own matrix first, then items published after training."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from model.arrays import FloatArray, IdArray
from model.serving.norms import Norms
from streams.errors import RefusedData
from streams.recall.ports import ItemReader, KnownItems

_LOG = logging.getLogger("mindstream.recall")

#: Any norm that is a number.
_FINITE = Norms(0.0, float(np.finfo(np.float64).max), unit=False)


class HistoryEmbeddings:
    """Looks up embeddings by item id. Safe to use from several threads.

    The embedding of an item published after training is the vector that it was published with, read from the index and
    cached. An id that the index does not have either is cached as unknown, but only briefly: its vector may arrive at
    any moment. An item whose vector has another norm than the model's counts as unknown, too, and so does an id that
    the index cannot look up, for good.

    Args:
        known: the items that the model was trained on.
        index: has the vectors of items published after training.
        capacity: largest number of ids in the cache, known and unknown together; the oldest entries are evicted first.
        refresh_s: seconds until a cached vector is read again.
        unknown_ttl_s: seconds for which an id counts as unknown before it is looked up again.
        norms: the norms that vectors of the index may have.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        known: KnownItems,
        index: ItemReader,
        *,
        capacity: int,
        refresh_s: float,
        unknown_ttl_s: float,
        norms: Norms = _FINITE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._vectors: FloatArray = np.asarray(known.item_vectors)  # calls on a numpy.memmap are slower
        self._index = index
        self._capacity = capacity
        self._refresh_s = refresh_s
        self._unknown_ttl_s = unknown_ttl_s
        self._norms = norms
        self._clock = clock
        self._cache: OrderedDict[int, tuple[float, FloatArray | None]] = OrderedDict()  # id → (expiry, vector)
        self._refused: set[int] = set()  # ids that the index cannot look up
        self._reported: set[int] = set()  # ids of items whose vectors have a wrong norm
        self._new = threading.Lock()  # held while new items are looked up

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
            with self._new:
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
            if expiry > now or item_id in self._refused:
                vectors[item_id] = vector
            else:
                stale.append(item_id)
        if stale:
            fetched = self._fetch(stale)
            for item_id in stale:
                vector = fetched.get(item_id)
                if vector is not None and not self._norms.accept(vector):
                    self._report(item_id, vector)
                    vector = None
                ttl_s = self._unknown_ttl_s if vector is None else self._refresh_s
                self._cache.pop(item_id, None)
                self._cache[item_id] = (now + ttl_s, vector)
                vectors[item_id] = vector
            while len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        return vectors

    def _fetch(self, ids: list[int]) -> Mapping[int, FloatArray]:
        """Read vectors from the index. The ids that it refuses are found by division, and not requested again."""
        try:
            return self._index.get(np.array(ids, dtype=np.int64))
        except RefusedData as error:
            if len(ids) == 1:
                _LOG.warning("%s; item %d of a history counts as unknown", error, ids[0])
                self._refused.update(ids)
                return {}
            middle = len(ids) // 2
            return {**self._fetch(ids[:middle]), **self._fetch(ids[middle:])}

    def _report(self, item_id: int, vector: FloatArray) -> None:
        if item_id not in self._reported:
            self._reported.add(item_id)
            fault = self._norms.fault(vector)
            _LOG.warning("item %d counts as unknown in histories: its vector in the index %s", item_id, fault)
