"""A standby: keeps the local histories of other workers' partitions up to date, so that taking one over is quick.

A thread follows the changelog of the partitions that this worker does not own, into stores of its own over the same
folder. A database has one user at a time, and this is the whole protocol:

1. What the standby follows changes only in `follow`, under a lock. It closes what is no longer followed before it
   returns, and the thread opens a database only under that lock, and only of a partition that is followed.
2. The batch thread stops following what it takes over before it opens it, and follows the others once it has closed
   them and the take-over is done.

The standby never repairs (`streams.state.restore`): its offset stays in front of an older record, until the owner's
repair comes by or the partition is taken over. Nothing that goes wrong here reaches the worker: while Kafka is away,
the standby waits, and a take-over restores more. What cannot be read stops the standby alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import closing
from typing import Any

from streams.history import CorruptHistoryError
from streams.state.changelog import Changelog, corrupt, listed
from streams.state.replica import Replica, first_unread
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.standby")

#: Most records applied at a time: a few milliseconds in which a take-over waits.
_BATCH = 2000
#: Seconds to wait for a batch to fill: how far the standby is behind.
_WAIT = 0.5
#: Seconds until the next try after a fault.
_PAUSE = 5.0


class Standby:
    """Follows the changelog of partitions in a thread of its own. The thread ends with the process, or with `close`.

    Args:
        changelog: to follow.
        stores: over the folder of the worker's own stores, for nobody else.
        partitions: all partitions of the changelog.
        pause: seconds until the next try after a fault.
    """

    def __init__(
        self, changelog: Changelog, stores: PartitionStores, partitions: Collection[int], pause: float = _PAUSE
    ) -> None:
        self._changelog = changelog
        self._stores = stores
        self._all = frozenset(partitions)
        self._pause = pause
        self._lock = threading.Lock()  # over what is followed, and over the stores
        self._followed: frozenset[int] = frozenset()
        self._choices = 0  # how often it was chosen what to follow
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standby", daemon=True)
        self._thread.start()

    def around(self, take_over: Callable[[Collection[int]], Any]) -> Callable[[Collection[int]], Any]:
        """The same take-over, with this standby out of its way before and at the other partitions after it."""

        def handed_over(partitions: Collection[int]) -> Any:
            self.follow(self._followed - frozenset(partitions))
            result = take_over(partitions)
            self.follow(self._all - frozenset(partitions))
            return result

        return handed_over

    def follow(self, partitions: Collection[int]) -> None:
        """From now on follow these partitions; the databases of all others are closed when this returns."""
        with self._lock:
            self._followed = frozenset() if self._closed.is_set() else frozenset(partitions)
            self._choices += 1
            self._stores.own(self._followed)

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed.set()
        self.follow(())
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._copy()
            except CorruptHistoryError as error:
                _LOG.error("the standby stops; the worker goes on without: %s", corrupt(self._changelog.topic, error))
                self.close()
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker needs no standby to be right
                _LOG.warning("the standby has to wait: %s; trying again in %.0f s", error, self._pause)
                self._closed.wait(self._pause)

    def _copy(self) -> None:
        """Follow until closed. What is followed may change at any time: what was read for the old choice is dropped."""
        choice = -1
        with closing(self._changelog.reader()) as reader:
            while not self._closed.is_set():
                if choice != self._choices:
                    with self._lock:
                        choice, followed = self._choices, self._followed
                    ends = self._changelog.ends(followed)  # takes a while: not under the lock
                    with self._lock:
                        if choice != self._choices:
                            continue
                        replica = Replica(self._stores)
                        unread = set(first_unread(self._stores, ends))
                        starts = {p: self._stores.offset(p) + 1 for p in followed}
                    reader.start(starts)
                    if followed:
                        _LOG.info("standby for %s; %d of them have to catch up", listed(followed), len(unread))
                portions, _ = reader.read(_BATCH, _WAIT)
                with self._lock:
                    if choice == self._choices:
                        for partition, portion in portions.items():
                            replica.apply(partition, portion)
                            if partition in unread and portion.reached + 1 >= ends[partition]:
                                unread.discard(partition)
                                _LOG.info("standby for partition %d has caught up", partition)
