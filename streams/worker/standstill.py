"""How long each partition has stood still."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streams.agents.state import AgentState
from streams.worker.lag import PartitionLag

#: How fast the clock of a partition runs that may be waiting for its turn.
_TURN = 0.1


class Standstill:
    """How long each partition of one agent has stood still. Pure: time and offsets are given.

    Args:
        patience: seconds of retrying that excuse a standstill.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._committed: dict[int, int] = {}
        self._emptied = 0
        self._restored = 0
        self.seconds: dict[int, float] = {}

    def look(self, state: AgentState, lags: Mapping[int, PartitionLag], step: float, restored: int = 0) -> None:
        """Bring `seconds` up to date, `step` seconds after the last look; `restored` records have been applied."""
        moved = {p for p, lag in lags.items() if lag.committed != self._committed.get(p)}
        busy = state.emptied == self._emptied
        self._committed = {p: lag.committed for p, lag in lags.items()}
        self._emptied = state.emptied
        restoring = state.restoring and restored != self._restored
        self._restored = restored
        behind = {p for p, lag in lags.items() if lag.lag}
        if state.owned:
            behind &= state.owned
            retrying = 0 < state.retrying < self._patience
            excused = restoring or retrying
            if busy and moved & state.owned:
                step *= _TURN
        else:
            excused = bool(moved)
        if excused:
            self.seconds = {}
        else:
            before = self.seconds
            self.seconds = {p: before[p] + step if p in before and p not in moved else 0.0 for p in behind}

    def forget(self, partitions: Collection[int] | None = None) -> None:
        """Start these clocks again; None = all, because it is not known what happened meanwhile."""
        gone = set(self.seconds if partitions is None else partitions)
        self.seconds = {p: seconds for p, seconds in self.seconds.items() if p not in gone}
        if partitions is None:
            self._committed = {}
