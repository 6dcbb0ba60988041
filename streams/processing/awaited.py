"""Users whose clicks wait for vectors: their items were published moments ago, or will be.

A click may arrive before the vector of its item. Its user is then answered without the item, or not at all if no item
of the history is known, and remembered here. When a vector has arrived, the user is answered again, without another
click. The number of tries is limited: most items without a vector never get one.

Users whose older recommendation was written after the newest, by a worker that was paused, are answered again, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from streams.processing.click_batch import User, UserClicks

#: Seconds between the click and the first try, and from each try to the next: the last one is after half a minute.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Most users remembered; beyond that, those whose click is the oldest are forgotten.
_MAX_USERS = 10_000


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
        next_due_at: monotonic time of the next try, in seconds; infinite if no user waits. Other threads may read it.
    """

    def __init__(self) -> None:
        self.next_due_at = math.inf
        self._waiting: dict[User, AwaitedVectors] = {}

    def __len__(self) -> int:
        return len(self._waiting)

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
            key = (user.partition, user.key)
            items = {item for _, item in user.clicks if item in unknown}
            before = self._waiting.pop(key, None)
            if items:
                awaited = frozenset(items if before is None else items | before.items)
                self._waiting[key] = AwaitedVectors(_newest(user), awaited, 0, now + WAITS_S[0])
            elif before is not None:
                self._waiting[key] = replace(before, user=_newest(user))
        while len(self._waiting) > _MAX_USERS:
            del self._waiting[next(iter(self._waiting))]
        self._schedule()

    def add_again(self, users: Sequence[UserClicks], now: float) -> None:
        """Have users answered again, whether they wait for a vector or not; `now` is the monotonic time, in seconds."""
        for user in users:
            self._waiting[user.partition, user.key] = AwaitedVectors(_newest(user), frozenset(), 0, now + WAITS_S[0])
        self._schedule()

    def due(self, now: float) -> list[AwaitedVectors]:
        """Return the users for whom it is time to try again."""
        return [] if now < self.next_due_at else [a for a in self._waiting.values() if a.due_at <= now]

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
            key = (waiting.user.partition, waiting.user.key)
            missing, tries = waiting.items.difference(known), waiting.tries + 1
            if missing and tries < len(WAITS_S):
                self._waiting[key] = AwaitedVectors(waiting.user, missing, tries, now + WAITS_S[tries])
            else:
                del self._waiting[key]
                given_up += bool(missing)
        self._schedule()
        return given_up

    def keep(self, partitions: Collection[int]) -> None:
        """Forget the users of all other partitions: they belong to other workers now."""
        self._waiting = {user: waiting for user, waiting in self._waiting.items() if user[0] in partitions}
        self._schedule()

    def offsets(self, partition: int) -> list[int]:
        """Return the offsets of the newest clicks of the users of a partition who wait, ascending."""
        return sorted(w.user.clicks[-1][0] for (p, _), w in list(self._waiting.items()) if p == partition)

    def _schedule(self) -> None:
        self.next_due_at = min((waiting.due_at for waiting in self._waiting.values()), default=math.inf)


def _newest(user: UserClicks) -> UserClicks:
    """Return the user with the newest click only: the fence stops it, so it is answered and not applied."""
    return replace(user, clicks=user.clicks[-1:])
