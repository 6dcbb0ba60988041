"""Positions in one topic: those that are processed, and those that Kafka has accepted.

A commit also proves that the partitions belong to this process (`streams.agents.assignment`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from configs.errors import TransientError
from streams.clock import boot_clock
from streams.ports import Message, Position


class Commits:
    """Processed and committed positions in the partitions that this process owns. For the event loop only.

    Args:
        commit: asks Kafka to accept these positions by partition; returns whether it did.
        prove: called with the time of `boot_clock` at which an accepted commit was sent.
        metadata: returns the text to commit with the offset after a batch (`PartitionHooks.commit_metadata`).
    """

    def __init__(
        self,
        commit: Callable[[Mapping[int, Position]], Awaitable[bool]],
        prove: Callable[[float], object],
        metadata: Callable[[int], str],
    ) -> None:
        self._send = commit
        self._prove = prove
        self._metadata = metadata
        self._done: dict[int, Position] = {}  # partition → position to commit: the offset after the last batch
        self._accepted: dict[int, Position] = {}
        self._sending = asyncio.Lock()  # an older commit that overtakes a newer one would cost repeats

    def done(self, messages: Sequence[Message]) -> None:
        """Record that these messages, and all before them, are processed."""
        ends = {message.partition: message.offset + 1 for message in messages}
        self._done.update({p: Position(end, self._metadata(p)) for p, end in ends.items()})

    @property
    def due(self) -> Mapping[int, Position]:
        """Partition → position that has to be committed."""
        return {p: position for p, position in self._done.items() if self._accepted.get(p) != position}

    async def commit(self) -> None:
        """Commit the positions that are due. A failed commit costs repeats, never clicks."""
        async with self._sending:
            due = self.due
            if due and await self._commit(due):
                self._accepted.update(due)

    async def renew_lease(self, messages: Sequence[Message]) -> None:
        """Commit the offsets at which a batch begins: everything before it is done.

        Raises:
            TransientError: Kafka did not accept the commit.
        """
        begins = {message.partition: Position(message.offset) for message in reversed(messages)}
        async with self._sending:
            if not await self._commit(begins):
                raise TransientError("Kafka", "it does not confirm that the partitions belong to this process")

    def forget(self) -> None:
        """Forget all positions: the partitions are revoked."""
        self._done.clear()
        self._accepted.clear()

    async def _commit(self, positions: Mapping[int, Position]) -> bool:
        sent_at = boot_clock()
        accepted = await self._send(positions)
        if accepted:
            self._prove(sent_at)
        return accepted
