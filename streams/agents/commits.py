"""What of a topic is done, what Kafka was told of it, and the lease that its answer gives.

A process that is paused for longer than its session loses its partitions and wakes as a zombie, with messages in hand
that their new owner has passed. Kafka takes commits from members of the group only, so one that it took proves that
the partitions belonged to no other when it was asked, and for the rest of the session.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from configs.errors import TransientError
from streams.ports import Message


class Commits:
    """Offsets of the partitions of one topic that this process owns. For the event loop alone, but for `leased`.

    Args:
        commit: asks Kafka to take these offsets by partition; whether it took them.
        lease: seconds, less than the session, for which a commit proves that the partitions are ours. None: no proof
            is ever wanted.
    """

    def __init__(self, commit: Callable[[Mapping[int, int]], Awaitable[bool]], lease: float | None) -> None:
        self._ask = commit
        self._lease = lease
        self._done: dict[int, int] = {}  # partition → offset to commit: one behind the last processed message
        self._taken: dict[int, int] = {}
        self._proved = -math.inf  # when the last commit that Kafka took was begun
        self._asking = asyncio.Lock()  # an older commit that overtakes a newer one would cost repeats

    def done(self, messages: Sequence[Message]) -> None:
        """These messages, and all before them, are processed."""
        for message in messages:
            self._done[message.partition] = message.offset + 1

    @property
    def due(self) -> Mapping[int, int]:
        """Partition → offset that Kafka does not know yet."""
        return {partition: offset for partition, offset in self._done.items() if self._taken.get(partition) != offset}

    async def commit(self) -> None:
        """Commit what is done. A failed commit costs repeats, never clicks."""
        async with self._asking:
            due = self.due
            if due and await self._commit(due):
                self._taken.update(due)

    def leased(self) -> bool:
        """Whether the last proof that the partitions are ours is fresh enough."""
        return self._lease is None or time.monotonic() - self._proved <= self._lease

    async def renew_lease(self, messages: Sequence[Message]) -> None:
        """Commit where a batch begins: what lies before it is done.

        Raises:
            TransientError: Kafka did not take it.
        """
        begins = {message.partition: message.offset for message in reversed(messages)}
        async with self._asking:
            if not await self._commit(begins):
                raise TransientError("Kafka", "it does not confirm that the partitions are ours")

    def forget(self) -> None:
        """The partitions are gone."""
        self._done.clear()
        self._taken.clear()

    async def _commit(self, offsets: Mapping[int, int]) -> bool:
        asked = time.monotonic()
        taken = await self._ask(offsets)
        if taken:
            self._proved = asked
        return taken
