"""Users whose clicks wait for vectors: their items were published moments ago, or will be.

A click may arrive before the vector of its item. Its user is then answered without the item, or not at all if no item
of the history is known, and remembered here. When a vector has arrived, the user is answered again, without another
click. The number of tries is limited: most items without a vector never get one.

Users whose older recommendation was written after the newest, by a worker that was paused, are answered again, too.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from streams.processing.click_batch import UserClicks

#: Seconds between the click and the first try, and from each try to the next: the last one is after half a minute.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Most users remembered; beyond that, those of the partition with the most are forgotten, the oldest clicks first.
_MAX_USERS = 10_000
#: Most users tried at a time: no batch, and no request to Milvus, has to wait for all who clicked one new item.
_MAX_DUE = 1_000


@dataclass(frozen=True, slots=True)
class AwaitedVectors:
    """A user who waits for vectors.

    Attributes:
        user: the user's newest click.
        items: ids of the clicked items that had no vector; empty = the user is answered in any case.
        tries: number of tries so far.
        due_at: monotonic time of the next try, in seconds.
    """

    user: UserClicks
    items: frozenset[int]
    tries: int
    due_at: float


class AwaitingUsers:
    """Remembers the users who wait for vectors, and when to try again. For the batch thread.

    Attributes:
        next_due_at: monotonic time of the next try, in seconds, or a little earlier; infinite if no user waits. Other
            threads may read it.
    """

    def __init__(self) -> None:
        self.next_due_at = math.inf
        self._waiting: dict[int, dict[bytes, AwaitedVectors]] = {}  # partition → user, the newest clicks last

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, users: Sequence[UserClicks], unknown: Collection[int], now: float) -> None:
        """Remember the users of a batch who clicked items without a vector.

        A user who waits already goes on waiting: the next answer is for the newest click.

        Args:
            users: all users of the batch.
            unknown: ids of items without a vector.
            now: monotonic time, in seconds.
        """
        if not unknown and not self._waiting:
            return
        for user in users:
            waiting = self._waiting.get(user.partition, {})
            items = {item for _, item in user.clicks if item in unknown}
            before = waiting.pop(user.key, None)
            if items:
                awaited = frozenset(items if before is None else items | before.items)
                self._remember(AwaitedVectors(_newest(user), awaited, 0, now + WAITS_S[0]))
            elif before is not None:
                self._remember(replace(before, user=_newest(user)))
        for _ in range(len(self) - _MAX_USERS):
            largest = max(self._waiting.values(), key=len)
            del largest[next(iter(largest))]

    def add_again(self, users: Sequence[UserClicks], now: float, wait_s: float = WAITS_S[0]) -> None:
        """Have users answered again, whether they wait for a vector or not.

        Args:
            users: the users.
            now: monotonic time, in seconds.
            wait_s: seconds until then.
        """
        for user in users:
            self._remember(AwaitedVectors(_newest(user), frozenset(), 0, now + wait_s))

    def due(self, now: float) -> list[AwaitedVectors]:
        """Return the users for whom it is time to try again: those who are due longest, at most `_MAX_DUE`."""
        if now < self.next_due_at:
            return []
        due = [waiting for waiting in self._all() if waiting.due_at <= now]
        if not due:
            self._schedule()
        return heapq.nsmallest(_MAX_DUE, due, key=lambda waiting: waiting.due_at)

    def tried(self, awaited: Sequence[AwaitedVectors], known: Collection[int], now: float) -> int:
        """Record tries; users whose items are all known, and those of the last try, are forgotten.

        Args:
            awaited: users returned by `due`.
            known: ids of items that have a vector now.
            now: monotonic time, in seconds.

        Returns:
            The number of users who were forgotten with an item that still has no vector.
        """
        given_up = 0
        for waiting in awaited:
            missing, tries = waiting.items.difference(known), waiting.tries + 1
            if missing and tries < len(WAITS_S):
                self._remember(AwaitedVectors(waiting.user, missing, tries, now + WAITS_S[tries]))
            else:
                del self._waiting[waiting.user.partition][waiting.user.key]
                given_up += bool(missing)
        self._schedule()
        return given_up

    def postpone(self, awaited: Sequence[AwaitedVectors], now: float) -> None:
        """Try these users again a little later, because a server was unavailable; that counts as no try."""
        for waiting in awaited:
            self._remember(replace(waiting, due_at=now + WAITS_S[0]))
        self._schedule()

    def keep(self, partitions: Collection[int]) -> None:
        """Forget the users of all other partitions: they belong to other workers now."""
        self._waiting = {p: waiting for p, waiting in self._waiting.items() if p in partitions}
        self._schedule()

    def offsets(self, partition: int, most: int) -> list[int]:
        """Return the offsets of the newest clicks of the users of a partition who wait, ascending; at most `most`."""
        newest = islice(reversed(self._waiting.get(partition, {}).values()), most)
        return sorted(waiting.user.clicks[-1][0] for waiting in newest)

    def _all(self) -> Iterator[AwaitedVectors]:
        return (waiting for partition in self._waiting.values() for waiting in partition.values())

    def _remember(self, waiting: AwaitedVectors) -> None:
        self._waiting.setdefault(waiting.user.partition, {})[waiting.user.key] = waiting
        self.next_due_at = min(self.next_due_at, waiting.due_at)

    def _schedule(self) -> None:
        """Look for the next try, and drop empty partitions. Takes too long for every batch."""
        self._waiting = {p: waiting for p, waiting in self._waiting.items() if waiting}
        self.next_due_at = min((waiting.due_at for waiting in self._all()), default=math.inf)


def _newest(user: UserClicks) -> UserClicks:
    """Return the user with the newest click only: the fence stops it, so it is answered and not applied."""
    return replace(user, clicks=user.clicks[-1:])
