"""A standby: keeps local copies of other workers' histories up to date, so that acquiring their partitions is fast.

A thread follows the changelog of the partitions that this worker does not own, into stores of its own in the same
folder. RocksDB allows one user of a database at a time, so:

1. The set of followed partitions changes only in `follow`, under a lock. `follow` closes the databases of all others
   before it returns, and the thread opens a database only under that lock, and only of a followed partition.
2. Before the batch thread opens the partitions that it acquires, it stops following them; after it has closed those
   that it lost and has restored the acquired ones, it follows all others.

The standby never repairs (`streams.state.restore`): its offset stays before an older record until the owner's repair
arrives or this worker acquires the partition. No fault of the standby affects the worker: while Kafka is unavailable,
the standby waits, and acquiring a partition restores more. A damaged store is set aside, and copied again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import closing
from typing import Any

from streams.state.changelog import Changelog, partitions_text
from streams.state.replica import Replica, first_unread_offsets
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.standby")

#: Most records applied at a time: a few milliseconds during which acquiring a partition waits for the lock.
_MAX_RECORDS = 2000
#: Seconds to wait for a chunk to fill. The standby lags by up to this time.
_WAIT_S = 0.5
#: Seconds until a retry after a fault.
_RETRY_S = 5.0


class Standby:
    """Follows the changelog of partitions in its own thread, which ends with the process, or with `close`.

    Args:
        changelog: the changelog to follow.
        stores: stores in the same folder as the worker's own; nothing else uses this object.
        partitions: all partitions of the changelog.
        count_foreign: called with the number of messages that were ignored, because they are no history records.
        retry_s: seconds until a retry after a fault.
    """

    def __init__(
        self,
        changelog: Changelog,
        stores: PartitionStores,
        partitions: Collection[int],
        count_foreign: Callable[[int], object] = lambda _: None,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._changelog = changelog
        self._stores = stores
        self._all = frozenset(partitions)
        self._count_foreign = count_foreign
        self._retry_s = retry_s
        self._lock = threading.Lock()  # guards the stores, and the two attributes below
        self._followed: frozenset[int] = frozenset()
        self._selection = 0  # number of calls of `follow`
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standby", daemon=True)
        self._thread.start()

    def wrap_acquire(self, acquire: Callable[[Collection[int]], Any]) -> Callable[[Collection[int]], Any]:
        """Return a function that acquires partitions with `acquire` while this standby does not follow them.

        Afterwards the standby follows all other partitions.
        """

        def acquire_from_standby(partitions: Collection[int]) -> Any:
            self.follow(self._followed - frozenset(partitions))
            result = acquire(partitions)
            self.follow(self._all - frozenset(partitions))
            return result

        return acquire_from_standby

    def follow(self, partitions: Collection[int]) -> None:
        """Follow exactly these partitions; the databases of all others are closed when this returns."""
        with self._lock:
            self._followed = frozenset() if self._closed.is_set() else frozenset(partitions)
            self._selection += 1
            self._stores.own(self._followed)

    def close(self) -> None:
        """Stop following permanently."""
        self._closed.set()
        self.follow(())
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._copy()
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker is correct without a standby
                _LOG.warning("the standby waits: %s; retrying in %.0f s", error, self._retry_s)
                self._closed.wait(self._retry_s)

    def _copy(self) -> None:
        """Follow until closed. The selection may change at any time: chunks read for an older one are discarded."""
        selection = -1
        with closing(self._changelog.reader()) as reader:
            while not self._closed.is_set():
                if selection != self._selection:
                    with self._lock:
                        selection, followed = self._selection, self._followed
                    ends = self._changelog.end_offsets(followed)  # takes too long to hold the lock
                    with self._lock:
                        if selection != self._selection:
                            continue
                        self._stores.own(followed)  # a database that has failed may be opened again
                        replica = Replica(self._stores, self._count_foreign)
                        unread = set(first_unread_offsets(self._stores, ends))
                        starts = {p: self._stores.offset(p) + 1 for p in followed}
                    reader.start(starts)
                    if followed:
                        text = partitions_text(followed)
                        _LOG.info("standby for %s; %d of them have to catch up", text, len(unread))
                chunks, _ = reader.read(_MAX_RECORDS, _WAIT_S)
                with self._lock:
                    if selection == self._selection:
                        for partition, chunk in chunks.items():
                            replica.apply(partition, chunk)
                            if partition in unread and chunk.last_offset + 1 >= ends[partition]:
                                unread.discard(partition)
                                _LOG.info("standby for partition %d has caught up", partition)
