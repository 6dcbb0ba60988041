"""Leaves a process that stands still while messages wait, so that its supervisor restarts it.

Consumers are known to hang after outages, event loops and threads can hang for any reason, and a process in that state
looks healthy from outside: it keeps its partitions, so nobody else works on them. The watchdog looks from a thread of
its own, with Kafka clients of its own, at what counts in the end: do the committed offsets move?

A partition stands still while messages wait behind its committed offset and this offset does not move. The process is
left when one of the agent's partitions has stood still for the time-out. What is no standstill:

- Kafka does not answer the watchdog: then nothing can be known. All clocks start again.
- Histories are being restored, and more of them with each look.
- A batch is tried again after transient faults: that is limited by the retry budget, not here.
- Others of the agent's partitions move and there is always more to do: this one may be waiting for its turn, and its
  clock runs ten times slower.
- Nothing can be read behind the committed offset: compaction or transactions took the last offsets.
- This process owns nothing, and the group is at work or has an owner for the partitions: it is one worker too many.
  One that owns nothing while nobody does, because joining the group hangs, stands still.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import Gauge

from configs.errors import EXIT_STALLED, TransientError
from streams.agents.state import AgentState
from streams.worker.lag import LagReader, PartitionLag
from streams.worker.standstill import Standstill

_LOG = logging.getLogger("mindstream.watchdog")

#: Seconds between two looks, at most; a fifth of the time-out if that is less.
_EVERY = 5.0
#: Seconds between log lines while Kafka does not answer.
_LOG_EVERY = 60.0
#: Seconds that the last log lines get. The log itself may be what hangs: nobody reads the pipe.
_LAST_WORDS = 2.0


class Agent(Protocol):
    """`streams.agents.agent.BatchAgent`, as far as the watchdog sees it."""

    @property
    def topic(self) -> str: ...
    def state(self) -> AgentState: ...


class LoopMonitor:
    """Whether the event loop runs: it beats, other threads listen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def tick(self) -> None:
        self._last = self._clock()

    @property
    def silence(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last


@dataclass
class _Watched:
    agent: Agent
    reader: LagReader
    standstill: Standstill
    lag: Gauge
    restored: Callable[[], int]
    shown: set[int] = field(default_factory=set)


class Watchdog:
    """Watches the agents of this process; each is judged by itself.

    Args:
        timeout: seconds of standstill after which the process is left.
        retry_budget: seconds of retrying that an agent allows itself.
        loop_monitor: of the event loop; for the log, which should say what hangs.
        leave: ends the process with a status; replaced in tests.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        timeout: float,
        retry_budget: float,
        loop_monitor: LoopMonitor,
        *,
        leave: Callable[[int], Any] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._patience = retry_budget + timeout
        self._loop_monitor = loop_monitor
        self._leave = leave
        self._clock = clock
        self._watched: list[_Watched] = []
        self._every = min(_EVERY, timeout / 5)
        self._last_look = clock()
        self._answered = self._last_look
        self._fault = "not asked yet"
        self._logged = -_LOG_EVERY

    def watch(self, agent: Agent, reader: LagReader, lag: Gauge, restored: Callable[[], int] = lambda: 0) -> None:
        """Add an agent, before `start`.

        Args:
            lag: shows the lag of its partitions.
            restored: records that its take-overs have applied so far.
        """
        self._watched.append(_Watched(agent, reader, Standstill(self._patience), lag, restored))

    def start(self) -> None:
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @property
    def kafka_fault(self) -> str | None:
        """What is wrong with Kafka; None = it answered the last look."""
        return self._fault or None

    def stalled_seconds(self) -> dict[str, float]:
        """Topic → seconds for which one of its partitions has stood still, when that is half of the time-out."""
        longest = {w.agent.topic: max(w.standstill.seconds.values(), default=0.0) for w in self._watched}
        return {topic: seconds for topic, seconds in longest.items() if seconds >= self._timeout / 2}

    def look(self) -> None:
        """Look at all agents once; leaves the process if one stands still."""
        now = self._clock()
        # A process that was stopped for a while, with its clocks running on, has not stood still.
        step = min(now - self._last_look, 2 * self._every)
        self._last_look = now
        for watched in self._watched:
            try:
                lags = watched.reader.partition_lags()
                state = watched.agent.state()
                watched.standstill.look(state, lags, step, watched.restored())
                self._show(watched, state, lags)
                late = self._confirmed(watched, state, lags)
            except TransientError as error:
                watched.standstill.forget()
                self._report(str(error))
            else:
                self._fault = ""
                if late:
                    self._end(watched, state, {p: lags[p].lag for p in late})

    def _run(self) -> None:
        while True:
            time.sleep(self._every)
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a watchdog that died would not be missed
                _LOG.exception("the watchdog failed; looking again in %.0f s", _LOG_EVERY)
                time.sleep(_LOG_EVERY)

    def _show(self, watched: _Watched, state: AgentState, lags: Mapping[int, PartitionLag]) -> None:
        owned = {p for p in state.owned or () if p in lags}
        for partition in watched.shown - owned:
            watched.lag.remove(partition)
        for partition in owned:
            watched.lag.labels(partition).set(lags[partition].lag)
        watched.shown = owned

    def _confirmed(self, watched: _Watched, state: AgentState, lags: Mapping[int, PartitionLag]) -> list[int]:
        """Partitions that have stood still for the time-out, and should not have."""
        late = [p for p, seconds in sorted(watched.standstill.seconds.items()) if seconds >= self._timeout]
        if not late:
            return []
        others = set() if state.owned else set(watched.reader.owned_by_others())
        excused = [p for p in late if p in others or not watched.reader.readable(p, lags[p].committed)]
        watched.standstill.forget(excused)
        return [p for p in late if p not in excused]

    def _end(self, watched: _Watched, state: AgentState, lags: Mapping[int, int]) -> None:
        last_words = threading.Timer(_LAST_WORDS, self._leave, (EXIT_STALLED,))
        last_words.daemon = True
        last_words.start()
        seconds = max(watched.standstill.seconds[p] for p in lags)
        _LOG.critical(
            "%s stands still: nothing committed for %.0f s on partitions %s, %d messages behind; %s. Leaving without "
            "commit, status %d; the stacks of all threads follow",
            watched.agent.topic,
            seconds,
            sorted(lags),
            sum(lags.values()),
            self._cause(state),
            EXIT_STALLED,
        )
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        last_words.cancel()
        self._leave(EXIT_STALLED)

    def _cause(self, state: AgentState) -> str:
        if self._loop_monitor.silence > 2 * self._every:
            return f"the event loop has not run for {self._loop_monitor.silence:.0f} s"
        if state.doing is not None:
            return f"{state.doing} has been in work for {state.seconds:.0f} s"
        if state.owned is None:
            return "the group has given this process no assignment"
        if not state.owned:
            return "no member of the group owns them"
        return "the consumer delivers nothing, or commits do not arrive"

    def _report(self, fault: str) -> None:
        self._fault = fault
        if self._clock() - self._logged >= _LOG_EVERY:
            self._logged = self._clock()
            _LOG.warning("cannot tell whether the worker stands still: %s", fault)
