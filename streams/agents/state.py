"""The state of an agent, as the watchdog and the health checks see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentState:
    """A snapshot of an agent.

    Attributes:
        started: it is a member of its consumer group, or is joining it; False = its start waits.
        partitions: owned by this process; None = the group has assigned none yet, or has revoked them.
        acquired: the partitions are acquired: their histories are up to date.
        acquiring: they are being acquired.
        retrying_s: seconds for which the current call has been retried after transient errors; 0 = not at all.
        idle_count: number of times that the agent had no message left to process.
        call: human-readable name of the batch thread's current call; None = it is idle.
        call_s: seconds since that call began.
    """

    started: bool
    partitions: frozenset[int] | None
    acquired: bool
    acquiring: bool
    retrying_s: float
    idle_count: int
    call: str | None
    call_s: float
