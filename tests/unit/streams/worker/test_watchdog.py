"""The watchdog: when it ends the process, and when it must not, with a clock, offsets and an agent that a test sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Gauge

from configs.errors import EXIT_STALLED, TransientError
from streams.agents.state import AgentState
from streams.worker.lag import PartitionLag
from streams.worker.watchdog import LoopMonitor, Watchdog

TIMEOUT = 100.0
BUDGET = 300.0
STEP = 5.0


class Group:
    """A consumer group on one topic, as far as a `LagReader` sees it."""

    def __init__(self, partitions: int) -> None:
        self.committed = dict.fromkeys(range(partitions), 0)
        self.ends = dict.fromkeys(range(partitions), 0)
        self.others: set[int] = set()
        self.unreadable: set[int] = set()
        self.away = False

    def partition_lags(self) -> Mapping[int, PartitionLag]:
        if self.away:
            raise TransientError("Kafka", "away, for the test")
        return {p: PartitionLag(self.committed[p], end) for p, end in self.ends.items()}

    def readable(self, partition: int, offset: int) -> bool:
        return partition not in self.unreadable and offset < self.ends[partition]

    def owned_by_others(self) -> Collection[int]:
        return self.others


class Agent:
    """Shows whatever state it is given; idle unless `busy`."""

    topic = "clicks"

    def __init__(self, owned: Collection[int] | None) -> None:
        partitions = None if owned is None else frozenset(owned)
        self.now = AgentState(partitions, True, False, 0.0, 0, None, 0.0)
        self.busy = False

    def state(self) -> AgentState:
        if not self.busy:
            self.now = replace(self.now, idle_count=self.now.idle_count + 1)
        return self.now

    def becomes(self, **changes: object) -> None:
        self.now = replace(self.now, **changes)  # type: ignore[arg-type]


class World:
    def __init__(self, owned: Collection[int] | None = (0, 1), partitions: int = 2) -> None:
        self.time = 0.0
        self.exits: list[int] = []
        self.group = Group(partitions)
        self.agent = Agent(owned)
        self.loop_monitor = LoopMonitor(clock=lambda: self.time)
        self.lag = Gauge("lag", "lag", ["partition"], registry=CollectorRegistry())
        self.dog = Watchdog(TIMEOUT, BUDGET, self.loop_monitor, exit_process=self.exits.append, clock=lambda: self.time)
        self.restored = 0
        self.dog.watch(self.agent, self.group, self.lag, lambda: self.restored)
        self.dog.check()

    def passes(self, seconds: float, moving: Collection[int] = (), step: float = STEP) -> None:
        """Time goes by; on the `moving` partitions messages come and are committed."""
        for _ in range(int(seconds / step)):
            self.time += step
            self.loop_monitor.tick()
            for partition in moving:
                self.group.ends[partition] += 1
                self.group.committed[partition] += 1
            self.dog.check()
            if self.exits:
                return

    def dies_after(self, moving: Collection[int] = (), within: float = 10 * TIMEOUT) -> float:
        before = self.time
        self.passes(within, moving)
        assert self.exits == [EXIT_STALLED]
        return self.time - before


def test_messages_without_a_commit_end_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.group.ends[1] = 7
    assert TIMEOUT <= world.dies_after() <= TIMEOUT + 3 * STEP
    assert "Thread 0x" in capfd.readouterr().err, "the stacks of all threads"


def test_the_log_names_what_is_stalled(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.group.ends[1] = 7
    world.agent.becomes(call="a batch of 7 messages", call_s=99.0)
    world.dies_after()
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"]
    for part in (
        "clicks",
        "partitions [1]",
        "7 messages behind",
        "a batch of 7 messages has been in progress for 99 s",
    ):
        assert part in said


def test_a_silent_topic_is_no_standstill() -> None:
    world = World()
    world.passes(10 * TIMEOUT)
    assert not world.exits


def test_slow_progress_is_progress() -> None:
    world = World()
    world.group.ends[0] = 10_000
    for _ in range(20):
        world.passes(0.9 * TIMEOUT)
        world.group.committed[0] += 1
    assert not world.exits


def test_one_partition_that_stays_behind_ends_the_process_though_others_move() -> None:
    world = World()
    world.group.ends[1] = 3
    assert world.dies_after(moving=[0]) <= TIMEOUT + 3 * STEP


def test_a_partition_may_wait_for_its_turn_while_the_agent_is_never_done_with_the_others() -> None:
    world = World()
    world.group.ends = {0: 100_000, 1: 3}
    world.agent.busy = True
    world.passes(9 * TIMEOUT, moving=[0])
    assert not world.exits
    assert world.dies_after(moving=[0]) < 2 * TIMEOUT, "but not without a limit"


def test_batches_that_are_finished_but_never_committed_end_the_process() -> None:
    world = World()
    world.group.ends = {0: 500, 1: 500}
    world.agent.busy = True
    world.dies_after()


def test_an_outage_is_left_to_the_retry_budget() -> None:
    world = World()
    world.group.ends[0] = 5
    for retried in range(0, int(BUDGET), int(STEP)):
        world.agent.becomes(retrying_s=retried + 0.1, call="a batch of 5 messages")
        world.passes(STEP)
    assert not world.exits
    world.agent.becomes(retrying_s=0.0)
    world.passes(0.9 * TIMEOUT)
    assert not world.exits, "the clock starts when the outage is over"


def test_a_retry_that_never_comes_back_is_a_standstill() -> None:
    world = World()
    world.group.ends[0] = 5
    world.agent.becomes(retrying_s=BUDGET + TIMEOUT + 1)
    world.dies_after()


def test_restoring_is_progress_while_records_come() -> None:
    world = World()
    world.group.ends[0] = 5
    world.agent.becomes(acquired=False, acquiring=True)
    for _ in range(30):
        world.restored += 1
        world.passes(0.9 * TIMEOUT)
    assert not world.exits
    world.agent.becomes(acquiring=False)  # and then nothing goes on
    world.restored += 1
    world.dies_after()


def test_acquiring_that_hangs_is_a_stall() -> None:
    world = World()
    world.group.ends[0] = 5
    world.restored = 7
    world.agent.becomes(acquired=False, acquiring=True)
    assert world.dies_after() < 2 * TIMEOUT


def test_without_kafka_nothing_is_known(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.group.ends[0] = 5
    world.passes(0.9 * TIMEOUT)
    world.group.away = True
    world.passes(600)
    assert not world.exits
    assert len(caplog.records) <= 11, "a line a minute"
    assert world.dog.kafka_fault == "Kafka: away, for the test"
    world.group.away = False
    world.passes(0.9 * TIMEOUT)
    assert not world.exits, "the clocks start again"
    assert world.dog.kafka_fault is None
    world.dies_after()


def test_offsets_without_messages_are_no_lag() -> None:
    world = World()
    world.group.ends[0] = 5
    world.group.unreadable = {0}
    world.passes(10 * TIMEOUT)
    assert not world.exits


def test_a_process_that_was_paused_is_not_stalled() -> None:
    world = World()
    world.group.ends[0] = 5
    world.passes(10 * STEP)
    world.time += 1000.0
    world.dog.check()
    assert not world.exits


@pytest.mark.parametrize("owned", [(), None])
def test_a_worker_beyond_the_number_of_partitions_stays(owned: Collection[int] | None) -> None:
    world = World(owned=owned)
    world.group.ends = {0: 10**6, 1: 3}
    world.passes(10 * TIMEOUT, moving=[0])
    assert not world.exits, "other members process messages"
    world.group.others = {0, 1}
    world.passes(10 * TIMEOUT)
    assert not world.exits, "other members own the partitions, and have watchdogs of their own"


@pytest.mark.parametrize("owned", [(), None])
def test_a_worker_that_never_gets_partitions_exits_when_no_member_works(owned: Collection[int] | None) -> None:
    world = World(owned=owned)
    world.group.ends[0] = 3
    assert world.dies_after() >= TIMEOUT


def test_partitions_of_others_do_not_count() -> None:
    world = World(owned=[0])
    world.group.ends[1] = 1000
    world.passes(10 * TIMEOUT)
    assert not world.exits


def test_agents_are_judged_separately() -> None:
    world = World()
    items = Group(1)
    world.dog.watch(Agent([0]), items, Gauge("other", "lag", ["partition"], registry=CollectorRegistry()))
    items.ends[0] = 2
    world.dies_after(moving=[0, 1])


def test_a_stall_shows_before_it_ends_the_process() -> None:
    world = World()
    world.group.ends[0] = 5
    world.passes(0.4 * TIMEOUT)
    assert world.dog.stalled_seconds() == {}
    world.passes(0.3 * TIMEOUT)
    assert world.dog.stalled_seconds()["clicks"] >= TIMEOUT / 2


def test_lag_is_shown_for_owned_partitions_only() -> None:
    world = World(owned=[0, 1])
    world.group.ends = {0: 5, 1: 7}
    world.passes(STEP)
    assert {s.labels["partition"]: s.value for m in world.lag.collect() for s in m.samples} == {"0": 5.0, "1": 7.0}
    world.agent.becomes(partitions=frozenset({1}))
    world.passes(STEP)
    assert {s.labels["partition"]: s.value for m in world.lag.collect() for s in m.samples} == {"1": 7.0}
