"""The state of an agent, for the watchdog and the health checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentState:
    """What the watchdog and the health checks see of an agent.

    Attributes:
        owned: partitions; None = the group has not given any assignment, or has taken it back.
        restored: the partitions are taken over: their histories are up to date.
        restoring: they are being taken over.
        retrying: seconds for which the call in hand has been tried again after transient faults; 0 = not at all.
        emptied: how often the agent has found nothing left to do.
        doing: what the batch thread is at, for people; None = nothing.
        seconds: for how long.
    """

    owned: frozenset[int] | None
    restored: bool
    restoring: bool
    retrying: float
    emptied: int
    doing: str | None
    seconds: float
