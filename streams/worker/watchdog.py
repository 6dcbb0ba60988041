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
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaException
from prometheus_client import Gauge

from configs.schema import Kafka
from streams.agents.agent import AgentState
from streams.errors import EXIT_STALLED, FatalError, TransientError
from streams.kafka.client import Positions, admin, read_to_end

_LOG = logging.getLogger("mindstream.watchdog")

#: Seconds between two looks, at most; a fifth of the time-out if that is less.
_EVERY = 5.0
#: How fast the clock of a partition runs that may be waiting for its turn.
_TURN = 0.1
#: Seconds until a request to Kafka counts as unanswered.
_TIMEOUT = 10.0
#: Seconds between log lines while Kafka does not answer.
_LOG_EVERY = 60.0
#: Seconds that the last log lines get. The log itself may be what hangs: nobody reads the pipe.
_LAST_WORDS = 2.0


class Mark(NamedTuple):
    """Where a group stands in a partition: the offset to read next, and the offset after the newest message."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        return max(0, self.end - self.committed)


class LagReader(Protocol):
    """A view of one consumer group on one topic that needs nothing of the worker's consumer.

    All methods raise `TransientError` when Kafka does not answer.
    """

    def marks(self) -> Mapping[int, Mark]:
        """All partitions of the topic."""
        ...

    def readable(self, partition: int, offset: int) -> bool:
        """Whether there is a message at or behind the offset."""
        ...

    def owned_by_others(self) -> Collection[int]:
        """Partitions that other members of the group own."""
        ...


class Agent(Protocol):
    """`streams.agents.agent.BatchAgent`, as far as the watchdog sees it."""

    @property
    def topic(self) -> str: ...
    def state(self) -> AgentState: ...


class Pulse:
    """Whether the event loop runs: it beats, other threads listen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        self._last = self._clock()

    @property
    def silence(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last


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

    def look(self, state: AgentState, marks: Mapping[int, Mark], step: float, restored: int = 0) -> None:
        """Bring `seconds` up to date, `step` seconds after the last look; `restored` records have been applied."""
        moved = {p for p, mark in marks.items() if mark.committed != self._committed.get(p)}
        busy = state.emptied == self._emptied
        self._committed = {p: mark.committed for p, mark in marks.items()}
        self._emptied = state.emptied
        restoring = state.restoring and restored != self._restored
        self._restored = restored
        behind = {p for p, mark in marks.items() if mark.lag}
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
        pulse: of the event loop; for the log, which should say what hangs.
        leave: ends the process with a status; replaced in tests.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        timeout: float,
        retry_budget: float,
        pulse: Pulse,
        *,
        leave: Callable[[int], Any] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._patience = retry_budget + timeout
        self._pulse = pulse
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

    def standing(self) -> dict[str, float]:
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
                marks = watched.reader.marks()
                state = watched.agent.state()
                watched.standstill.look(state, marks, step, watched.restored())
                self._show(watched, state, marks)
                late = self._confirmed(watched, state, marks)
            except TransientError as error:
                watched.standstill.forget()
                self._report(str(error))
            else:
                self._fault = ""
                if late:
                    self._end(watched, state, {p: marks[p].lag for p in late})

    def _run(self) -> None:
        while True:
            time.sleep(self._every)
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a watchdog that died would not be missed
                _LOG.exception("the watchdog failed; looking again in %.0f s", _LOG_EVERY)
                time.sleep(_LOG_EVERY)

    def _show(self, watched: _Watched, state: AgentState, marks: Mapping[int, Mark]) -> None:
        owned = {p for p in state.owned or () if p in marks}
        for partition in watched.shown - owned:
            watched.lag.remove(partition)
        for partition in owned:
            watched.lag.labels(partition).set(marks[partition].lag)
        watched.shown = owned

    def _confirmed(self, watched: _Watched, state: AgentState, marks: Mapping[int, Mark]) -> list[int]:
        """Partitions that have stood still for the time-out, and should not have."""
        late = [p for p, seconds in sorted(watched.standstill.seconds.items()) if seconds >= self._timeout]
        if not late:
            return []
        others = set() if state.owned else set(watched.reader.owned_by_others())
        excused = [p for p in late if p in others or not watched.reader.readable(p, marks[p].committed)]
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
        if self._pulse.silence > 2 * self._every:
            return f"the event loop has not run for {self._pulse.silence:.0f} s"
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


class KafkaLag:
    """`LagReader` with confluent-kafka. For one thread.

    Args:
        kafka: the cluster.
        group: consumer group.
        topic: that it reads.
        partitions: number of the topic's partitions.
        client_id: by which the group's members show whether they are this process.
    """

    def __init__(self, kafka: Kafka, group: str, topic: str, partitions: int, client_id: str) -> None:
        self._kafka = kafka
        self._group = group
        self._topic = topic
        self._partitions = range(partitions)
        self._client_id = client_id
        self._positions = Positions(kafka, topic, group)

    def marks(self) -> Mapping[int, Mark]:
        """See `LagReader.marks`."""
        try:
            committed, ends = self._positions.committed(self._partitions), self._positions.ends(self._partitions)
            begins = self._positions.begins([p for p, offset in committed.items() if offset is None])
        except FatalError as error:
            raise TransientError("Kafka", str(error)) from None  # whether the worker can go on is not decided here
        return {p: Mark(begins.get(p, committed[p] or 0), end) for p, end in ends.items()}

    def readable(self, partition: int, offset: int) -> bool:
        """See `LagReader.readable`."""
        try:
            with closing(read_to_end(self._kafka, self._topic, {partition: offset})) as records:
                return next(records, None) is not None
        except FatalError as error:
            raise TransientError("Kafka", str(error)) from None

    def owned_by_others(self) -> Collection[int]:
        """See `LagReader.owned_by_others`."""
        # Only an admin client can tell. It may abort the process (see `Positions`): it is made for this question alone,
        # which only a process asks that owns nothing.
        client = admin(self._kafka)
        try:
            future = client.describe_consumer_groups([self._group], request_timeout=_TIMEOUT)[self._group]
            group = future.result()
        except KafkaException as error:
            raise TransientError("Kafka", str(error.args[0])) from None
        return {
            tp.partition
            for member in group.members
            if member.client_id != self._client_id and member.assignment is not None
            for tp in member.assignment.topic_partitions
            if tp.topic == self._topic
        }
