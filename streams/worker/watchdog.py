"""Ends a process that is stalled while messages wait, so that its supervisor restarts it.

Consumers are known to hang after outages, event loops and threads can hang for any reason, and a process in that state
looks healthy from outside: it keeps its partitions, so no other worker processes them. The watchdog checks from a
thread of its own, with Kafka clients of its own, what matters in the end: do the committed offsets move?

A partition is stalled while messages wait after its committed offset and this offset does not move. The process exits
when one of the agent's partitions has been stalled for the timeout. Not a stall:

- Kafka does not respond to the watchdog: then nothing is known. All clocks restart.
- Histories are being restored, and more of them at each check.
- A batch is retried after transient errors: that is limited by the retry budget, not here.
- Other partitions of the agent move, and it never runs out of messages: this one may be waiting for its turn, and its
  clock runs ten times slower.
- Nothing can be read after the committed offset: compaction or transactions left the last offsets without messages.
- The agent has not started: it waits until the collection is filled.
- This process owns nothing, and the group is processing, or other members own the partitions: there are more workers
  than partitions. A process that owns nothing while no other member does, because joining the group hangs, is stalled.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import Gauge

from configs.errors import EXIT_STALLED, TransientError
from streams.agents.state import AgentState
from streams.worker.lag import LagGauge, LagReader, PartitionLag
from streams.worker.stall_clocks import StallClocks

_LOG = logging.getLogger("mindstream.watchdog")

#: Seconds between two checks, at most; a fifth of the timeout if that is less.
_INTERVAL_S = 5.0
#: Seconds between two requests for the owners of partitions, while this process owns none and all have an owner.
_OWNERS_INTERVAL_S = 30.0
#: Seconds between log lines while Kafka does not respond.
_LOG_INTERVAL_S = 60.0
#: Seconds for writing the final log lines. The log itself may be what hangs, when its pipe is not read.
_FINAL_LOG_S = 2.0


class Agent(Protocol):
    """The part of `streams.agents.agent.BatchAgent` that the watchdog and the health checks use."""

    @property
    def topic(self) -> str:
        """The topic that it reads."""
        ...

    def state(self) -> AgentState:
        """Return a snapshot. May be called from any thread."""
        ...


class LoopMonitor:
    """Shows other threads whether the event loop runs: a task in it calls `tick` every second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def tick(self) -> None:
        self._last = self._clock()

    @property
    def silence_s(self) -> float:
        """Seconds since the last tick."""
        return self._clock() - self._last


@dataclass
class _Watched:
    agent: Agent
    reader: LagReader
    clocks: StallClocks
    lag: LagGauge
    restored: Callable[[], int]
    unowned: Set[int] | None = None  # see `Watchdog.unowned`
    asked_at: float = -math.inf  # when the owners were asked for


class Watchdog:
    """Watches the agents of this process, each separately.

    Args:
        timeout_s: seconds for which a partition may be stalled before the process exits.
        retry_budget_s: seconds for which an agent retries before it exits.
        loop_monitor: shows whether the event loop hangs, for the log.
        exit_process: ends the process with a status; replaced in tests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        timeout_s: float,
        retry_budget_s: float,
        loop_monitor: LoopMonitor,
        *,
        exit_process: Callable[[int], Any] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._excused_retry_s = retry_budget_s + timeout_s
        self._loop_monitor = loop_monitor
        self._exit = exit_process
        self._clock = clock
        self._watched: list[_Watched] = []
        self._interval_s = min(_INTERVAL_S, timeout_s / 5)
        self._last_check = clock()
        self._fault = "not asked yet"
        self._logged_at = -_LOG_INTERVAL_S

    def watch(self, agent: Agent, reader: LagReader, lag: Gauge, restored: Callable[[], int] = lambda: 0) -> None:
        """Add an agent, before `start`.

        Args:
            agent: the agent to watch.
            reader: reads the lag of its consumer group.
            lag: metric that shows the lag of its partitions.
            restored: returns the number of history records that it has restored so far.
        """
        clocks = StallClocks(self._excused_retry_s)
        self._watched.append(_Watched(agent, reader, clocks, LagGauge(reader, lag), restored))

    def start(self) -> None:
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @property
    def kafka_fault(self) -> str | None:
        """Why Kafka did not respond to the last check; None = it did."""
        return self._fault or None

    def stalled_seconds(self) -> dict[str, float]:
        """Return topic → seconds for which a partition has been stalled, if they are at least half of the timeout."""
        longest = {w.agent.topic: max(w.clocks.seconds.values(), default=0.0) for w in self._watched}
        return {topic: seconds for topic, seconds in longest.items() if seconds >= self._timeout_s / 2}

    def unowned(self, topic: str) -> Set[int] | None:
        """Return the partitions of a topic that no process owns; None = not known, or this process owns some."""
        return next(w.unowned for w in self._watched if w.agent.topic == topic)

    def check(self) -> None:
        """Check all agents once; exit the process if one is stalled."""
        now = self._clock()
        # A process that was paused for a while, with its clocks running on, was not stalled.
        step_s = min(now - self._last_check, 2 * self._interval_s)
        self._last_check = now
        fault = ""
        for watched in self._watched:
            try:
                lags = watched.reader.partition_lags()
                state = watched.agent.state()
                watched.clocks.update(state, lags, step_s, watched.restored())
                watched.lag.show({p: lags[p] for p in state.partitions or () if p in lags})
                self._find_unowned(watched, state, lags)
                stalled = self._confirmed(watched, state, lags)
            except TransientError as error:
                watched.clocks.reset()
                watched.unowned = None
                fault = str(error)
                self._log_fault(fault)
            else:
                if stalled:
                    self._end(watched, state, {p: lags[p].lag for p in stalled})
        self._fault = fault

    def _run(self) -> None:
        while True:
            try:
                self.check()
            except Exception:  # noqa: BLE001 - the death of a watchdog would go unnoticed
                _LOG.exception("the watchdog failed; next check in %.0f s", _LOG_INTERVAL_S)
                time.sleep(_LOG_INTERVAL_S)
            time.sleep(self._interval_s)

    def _find_unowned(self, watched: _Watched, state: AgentState, lags: Mapping[int, PartitionLag]) -> None:
        """Ask who owns the partitions if this process owns none, now and then: see `assigned_to_others`."""
        if state.partitions != frozenset():
            watched.unowned = None
        elif watched.unowned != frozenset() or self._clock() - watched.asked_at >= _OWNERS_INTERVAL_S:
            watched.unowned = lags.keys() - set(watched.reader.owned_by_others())
            watched.asked_at = self._clock()

    def _confirmed(self, watched: _Watched, state: AgentState, lags: Mapping[int, PartitionLag]) -> list[int]:
        """Return the partitions that have been stalled for the timeout without an excuse."""
        late = [p for p, seconds in sorted(watched.clocks.seconds.items()) if seconds >= self._timeout_s]
        if not late:
            return []
        others = set() if state.partitions else set(watched.reader.owned_by_others())
        excused = [p for p in late if p in others or not watched.reader.readable(p, lags[p].committed)]
        watched.clocks.reset(excused)
        return [p for p in late if p not in excused]

    def _end(self, watched: _Watched, state: AgentState, lags: Mapping[int, int]) -> None:
        deadline = threading.Timer(_FINAL_LOG_S, self._exit, (EXIT_STALLED,))
        deadline.daemon = True
        deadline.start()
        seconds = max(watched.clocks.seconds[p] for p in lags)
        _LOG.critical(
            "%s is stalled: nothing committed for %.0f s on partitions %s, %d messages behind; %s. Exiting without "
            "commit, status %d; the stacks of all threads follow",
            watched.agent.topic,
            seconds,
            sorted(lags),
            sum(lags.values()),
            self._cause(state),
            EXIT_STALLED,
        )
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        deadline.cancel()
        self._exit(EXIT_STALLED)

    def _cause(self, state: AgentState) -> str:
        if self._loop_monitor.silence_s > 2 * self._interval_s:
            return f"the event loop has not run for {self._loop_monitor.silence_s:.0f} s"
        if state.call is not None:
            return f"{state.call} has been in progress for {state.call_s:.0f} s"
        if state.partitions is None:
            return "the group has assigned no partitions to this process"
        if not state.partitions:
            return "no member of the group owns them"
        return "the consumer delivers nothing, or commits do not arrive"

    def _log_fault(self, fault: str) -> None:
        if self._clock() - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = self._clock()
            _LOG.warning("cannot tell whether the worker is stalled: %s", fault)
