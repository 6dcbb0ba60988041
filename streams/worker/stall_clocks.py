"""Stall clocks: for how long each partition of an agent has been stalled."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streams.agents.state import AgentState
from streams.worker.lag import PartitionLag

#: Rate of the clock of a partition that may be waiting for its turn; 1 = real time.
_WAITING_RATE = 0.1


class StallClocks:
    """Stall clocks, one for each partition of one agent. Pure: time and offsets are arguments.

    Args:
        excused_retry_s: seconds for which retries excuse a stall.

    Attributes:
        seconds: partition → seconds for which it has been stalled.
    """

    def __init__(self, excused_retry_s: float) -> None:
        self._excused_retry_s = excused_retry_s
        self._committed: dict[int, int] = {}
        self._idle_count = 0
        self._restored = 0
        self.seconds: dict[int, float] = {}

    def update(self, state: AgentState, lags: Mapping[int, PartitionLag], step_s: float, restored: int = 0) -> None:
        """Update the clocks.

        Args:
            state: the agent's state.
            lags: partition → lag of the agent's group.
            step_s: seconds since the last update.
            restored: number of history records that the agent has restored so far.
        """
        moved = {p for p, lag in lags.items() if lag.committed != self._committed.get(p)}
        busy = state.idle_count == self._idle_count
        self._committed = {p: lag.committed for p, lag in lags.items()}
        self._idle_count = state.idle_count
        restoring = state.acquiring and restored != self._restored
        self._restored = restored
        behind = {p for p, lag in lags.items() if lag.lag}
        if not state.started:
            excused = True
        elif state.partitions:
            behind &= state.partitions
            retrying = 0 < state.retrying_s < self._excused_retry_s
            excused = restoring or retrying
            if busy and moved & state.partitions:
                step_s *= _WAITING_RATE
        else:
            excused = bool(moved)
        if excused:
            self.seconds = {}
        else:
            before = self.seconds
            self.seconds = {p: before[p] + step_s if p in before and p not in moved else 0.0 for p in behind}

    def reset(self, partitions: Collection[int] | None = None) -> None:
        """Restart the clocks of these partitions; None = all, because it is unknown what happened meanwhile."""
        gone = set(self.seconds if partitions is None else partitions)
        self.seconds = {p: seconds for p, seconds in self.seconds.items() if p not in gone}
        if partitions is None:
            self._committed = {}
