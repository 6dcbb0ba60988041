"""The partitions that the consumer group has assigned to this process, and the proof that they still are.

A process that is paused for longer than its session loses its partitions and wakes as a zombie, with messages that the
new owner of their partitions has already processed. Kafka accepts commits from members of the group only. So an
accepted commit proves that the partitions belonged to no other member when it was sent, and for the rest of the
session: that is the *lease* (`streams/DELIVERY.md`, *Items*).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from configs.errors import TransientError
from streams.clock import boot_clock


class Assignment:
    """The partitions of one topic that this process owns.

    | state      | generation | acquired | revoked | the agent                                                    |
    |------------|------------|----------|---------|--------------------------------------------------------------|
    | unassigned | None       | no       | any     | waits: the group has assigned nothing yet, or revoked it      |
    | assigned   | set        | no       | no      | acquires the partitions, before their first batch            |
    | acquired   | set        | yes      | no      | processes batches, and maintains the partitions between them |
    | revoked    | set        | any      | yes     | finishes or abandons its current call, then is unassigned    |

    `assign` leads to *assigned* from every state, `set_acquired` to *acquired*, `revoke` to *revoked*, and `unassign`
    to *unassigned*. A generation is the number that the group gives to one distribution of its partitions: messages
    that were fetched in an older one are discarded, because their partitions may have had another owner since.

    For the event loop only, except `require_lease`, and reading the attributes.

    Args:
        lease_s: seconds, less than the session, for which an accepted commit proves ownership. None: no proof is
            needed, because processing a partition of another worker does no harm.

    Attributes:
        generation: the group's generation; None = unassigned.
        partitions: partition numbers, ascending.
    """

    def __init__(self, lease_s: float | None = None) -> None:
        self.generation: int | None = None
        self.partitions: Sequence[int] = ()
        self._acquired: int | None = None  # generation whose partitions are acquired
        self._revoked = asyncio.Event()
        self._lease_s = lease_s
        self._proved_at = -math.inf  # when the last accepted commit was sent
        self._call: int | None = None  # generation in which the current call of the batch thread began

    @property
    def acquired(self) -> bool:
        """True while the partitions are acquired: their histories are up to date."""
        generation = self.generation  # once: other threads read it, too
        return generation is not None and self._acquired == generation

    @property
    def revoked(self) -> bool:
        """True while the current call must be abandoned as soon as it can be."""
        return self._revoked.is_set()

    def assign(self, generation: int, partitions: Sequence[int]) -> None:
        """Begin a generation."""
        self.partitions = sorted(partitions)
        self._acquired = None
        self._revoked.clear()
        self.generation = generation  # last: other threads read the partitions once it is set

    def set_acquired(self, generation: int | None) -> None:
        """Record that the partitions of this generation are acquired."""
        self._acquired = generation

    def revoke(self) -> None:
        """Tell the current call to end."""
        self._revoked.set()

    def unassign(self) -> None:
        """End the generation."""
        self.generation = None

    async def revoked_within(self, timeout_s: float) -> bool:
        """Wait until the partitions are revoked, for at most `timeout_s`; return whether they were."""
        try:
            await asyncio.wait_for(self._revoked.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    def begin_call(self) -> int | None:
        """Record that a call of the batch thread begins, and return the current generation."""
        self._call = self.generation
        return self.generation

    def prove(self, sent_at: float) -> None:
        """Record that Kafka accepted a commit that was sent at this time of `boot_clock`: it renews the lease."""
        self._proved_at = sent_at

    def leased(self) -> bool:
        """Return whether the lease is valid."""
        return self._lease_s is None or boot_clock() - self._proved_at <= self._lease_s

    def require_lease(self) -> None:
        """Check, in the batch thread, right before a write that a newer owner of the partitions may have superseded.

        Raises:
            TransientError: the lease has expired since the call began, or the partitions were revoked.
        """
        if self.generation != self._call or not self.leased():
            raise TransientError("Kafka", "this process was paused; its partitions may belong to another worker")
