"""Offsets of one topic: those that are processed, and those that Kafka has accepted.

A commit also proves that the partitions belong to this process (`streams.agents.assignment`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from configs.errors import TransientError
from streams.ports import Message


class Commits:
    """Processed and committed offsets of the partitions that this process owns. For the event loop only.

    Args:
        commit: asks Kafka to accept these offsets by partition; returns whether it did.
        prove: called with the monotonic time at which an accepted commit was sent.
    """

    def __init__(
        self, commit: Callable[[Mapping[int, int]], Awaitable[bool]], prove: Callable[[float], object]
    ) -> None:
        self._send = commit
        self._prove = prove
        self._done: dict[int, int] = {}  # partition → offset to commit: that of the last processed message, plus 1
        self._accepted: dict[int, int] = {}
        self._sending = asyncio.Lock()  # an older commit that overtakes a newer one would cost repeats

    def done(self, messages: Sequence[Message]) -> None:
        """Record that these messages, and all before them, are processed."""
        for message in messages:
            self._done[message.partition] = message.offset + 1

    @property
    def due(self) -> Mapping[int, int]:
        """Partition → offset that has to be committed."""
        return {p: offset for p, offset in self._done.items() if self._accepted.get(p) != offset}

    async def commit(self) -> None:
        """Commit the offsets that are due. A failed commit costs repeats, never clicks."""
        async with self._sending:
            due = self.due
            if due and await self._commit(due):
                self._accepted.update(due)

    async def renew_lease(self, messages: Sequence[Message]) -> None:
        """Commit the offsets at which a batch begins: everything before it is done.

        Raises:
            TransientError: Kafka did not accept the commit.
        """
        begins = {message.partition: message.offset for message in reversed(messages)}
        async with self._sending:
            if not await self._commit(begins):
                raise TransientError("Kafka", "it does not confirm that the partitions belong to this process")

    def forget(self) -> None:
        """Forget all offsets: the partitions are revoked."""
        self._done.clear()
        self._accepted.clear()

    async def _commit(self, offsets: Mapping[int, int]) -> bool:
        sent_at = time.monotonic()
        accepted = await self._send(offsets)
        if accepted:
            self._prove(sent_at)
        return accepted
