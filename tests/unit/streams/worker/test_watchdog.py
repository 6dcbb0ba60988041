"""The watchdog: when it ends the process, and when it must not. Tests set the clock, the offsets and the agent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Gauge

from configs.errors import EXIT_STALLED, TransientError
from streams.agents.state import AgentState
from streams.worker.lag import PartitionLag
from streams.worker.watchdog import LoopMonitor, Watchdog

TIMEOUT_S = 100.0
BUDGET_S = 300.0
STEP_S = 5.0


class Group:
    """A consumer group on one topic, as far as a `LagReader` sees it."""

    def __init__(self, partitions: int) -> None:
        self.committed = dict.fromkeys(range(partitions), 0)
        self.ends = dict.fromkeys(range(partitions), 0)
        self.others: set[int] = set()
        self.asked: list[str] = []
        self.unreadable: set[int] = set()
        self.unavailable = False

    def partition_lags(self) -> Mapping[int, PartitionLag]:
        if self.unavailable:
            raise TransientError("Kafka", "unavailable, for the test")
        return {p: PartitionLag(self.committed[p], end) for p, end in self.ends.items()}

    def readable(self, partition: int, offset: int) -> bool:
        self.asked.append(f"readable {partition}")
        return partition not in self.unreadable and offset < self.ends[partition]

    def owned_by_others(self) -> Collection[int]:
        self.asked.append("owners")
        return self.others


class Agent:
    """Returns the state that the test has set; idle unless `busy`."""

    topic = "clicks"

    def __init__(self, owned: Collection[int] | None) -> None:
        partitions = None if owned is None else frozenset(owned)
        self.now = AgentState(True, partitions, True, False, 0.0, 0, None, 0.0)
        self.busy = False

    def state(self) -> AgentState:
        if not self.busy:
            self.now = replace(self.now, idle_count=self.now.idle_count + 1)
        return self.now

    def change(self, **changes: object) -> None:
        self.now = replace(self.now, **changes)  # type: ignore[arg-type]


class World:
    def __init__(self, owned: Collection[int] | None = (0, 1), partitions: int = 2) -> None:
        self.time = 0.0
        self.exits: list[int] = []
        self.group = Group(partitions)
        self.agent = Agent(owned)
        self.loop_monitor = LoopMonitor(clock=lambda: self.time)
        self.lag = Gauge("lag", "lag", ["partition"], registry=CollectorRegistry())
        self.watchdog = Watchdog(
            TIMEOUT_S, BUDGET_S, self.loop_monitor, exit_process=self.exits.append, clock=lambda: self.time
        )
        self.restored = 0
        self.watchdog.watch(self.agent, self.group, self.lag, lambda: self.restored)
        self.watchdog.check()

    def advance(self, seconds: float, moving: Collection[int] = (), step: float = STEP_S) -> None:
        """Let time pass; on the `moving` partitions, messages arrive and are committed."""
        for _ in range(int(seconds / step)):
            self.time += step
            self.loop_monitor.tick()
            for partition in moving:
                self.group.ends[partition] += 1
                self.group.committed[partition] += 1
            self.watchdog.check()
            if self.exits:
                return

    def time_until_exit(self, moving: Collection[int] = (), within: float = 10 * TIMEOUT_S) -> float:
        before = self.time
        self.advance(within, moving)
        assert self.exits == [EXIT_STALLED]
        return self.time - before


def test_messages_without_a_commit_end_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.group.ends[1] = 7
    assert TIMEOUT_S <= world.time_until_exit() <= TIMEOUT_S + 3 * STEP_S
    assert "Thread 0x" in capfd.readouterr().err, "the stacks of all threads"


def test_the_log_names_what_is_stalled(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.group.ends[1] = 7
    world.agent.change(call="a batch of 7 messages", call_s=99.0)
    world.time_until_exit()
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"]
    for part in (
        "clicks",
        "partitions [1]",
        "7 messages behind",
        "a batch of 7 messages has been in progress for 99 s",
    ):
        assert part in line


def test_a_topic_without_new_messages_is_not_stalled() -> None:
    world = World()
    world.advance(10 * TIMEOUT_S)
    assert not world.exits


def test_slow_progress_is_progress() -> None:
    world = World()
    world.group.ends[0] = 10_000
    for _ in range(20):
        world.advance(0.9 * TIMEOUT_S)
        world.group.committed[0] += 1
    assert not world.exits


def test_one_stalled_partition_ends_the_process_even_if_others_move() -> None:
    world = World()
    world.group.ends[1] = 3
    assert world.time_until_exit(moving=[0]) <= TIMEOUT_S + 3 * STEP_S


def test_a_partition_may_wait_for_its_turn_while_the_agent_is_busy_with_others() -> None:
    world = World()
    world.group.ends = {0: 100_000, 1: 3}
    world.agent.busy = True
    world.advance(9 * TIMEOUT_S, moving=[0])
    assert not world.exits
    assert world.time_until_exit(moving=[0]) < 2 * TIMEOUT_S, "but not without a limit"


def test_batches_that_are_finished_but_never_committed_end_the_process() -> None:
    world = World()
    world.group.ends = {0: 500, 1: 500}
    world.agent.busy = True
    world.time_until_exit()


def test_an_outage_is_limited_by_the_retry_budget_not_by_the_watchdog() -> None:
    world = World()
    world.group.ends[0] = 5
    for retried in range(0, int(BUDGET_S), int(STEP_S)):
        world.agent.change(retrying_s=retried + 0.1, call="a batch of 5 messages")
        world.advance(STEP_S)
    assert not world.exits
    world.agent.change(retrying_s=0.0)
    world.advance(0.9 * TIMEOUT_S)
    assert not world.exits, "the clock starts when the outage is over"


def test_a_retry_that_outlasts_its_budget_is_a_stall() -> None:
    world = World()
    world.group.ends[0] = 5
    world.agent.change(retrying_s=BUDGET_S + TIMEOUT_S + 1)
    world.time_until_exit()


def test_restoring_is_progress_while_records_arrive() -> None:
    world = World()
    world.group.ends[0] = 5
    world.agent.change(acquired=False, acquiring=True)
    for _ in range(30):
        world.restored += 1
        world.advance(0.9 * TIMEOUT_S)
    assert not world.exits
    world.agent.change(acquiring=False)  # then progress ends
    world.restored += 1
    world.time_until_exit()


def test_acquiring_that_hangs_is_a_stall() -> None:
    world = World()
    world.group.ends[0] = 5
    world.restored = 7
    world.agent.change(acquired=False, acquiring=True)
    assert world.time_until_exit() < 2 * TIMEOUT_S


def test_without_kafka_nothing_is_known(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.group.ends[0] = 5
    world.advance(0.9 * TIMEOUT_S)
    world.group.unavailable = True
    world.advance(600)
    assert not world.exits
    assert len(caplog.records) <= 11, "one line a minute"
    assert world.watchdog.kafka_fault == "Kafka: unavailable, for the test"
    world.group.unavailable = False
    world.advance(0.9 * TIMEOUT_S)
    assert not world.exits, "the clocks start again"
    assert world.watchdog.kafka_fault is None
    world.time_until_exit()


def test_offsets_without_messages_do_not_count_as_lag() -> None:
    world = World()
    world.group.ends[0] = 5
    world.group.unreadable = {0}
    world.advance(10 * TIMEOUT_S)
    assert not world.exits


def test_a_process_that_was_paused_is_not_stalled() -> None:
    world = World()
    world.group.ends[0] = 5
    world.advance(10 * STEP_S)
    world.time += 1000.0
    world.watchdog.check()
    assert not world.exits


@pytest.mark.parametrize("owned", [(), None])
def test_a_worker_without_partitions_runs_while_others_own_them(owned: Collection[int] | None) -> None:
    world = World(owned=owned)
    world.group.ends = {0: 10**6, 1: 3}
    world.advance(10 * TIMEOUT_S, moving=[0])
    assert not world.exits, "other members process messages"
    world.group.others = {0, 1}
    world.advance(10 * TIMEOUT_S)
    assert not world.exits, "other members own the partitions, and have watchdogs of their own"


@pytest.mark.parametrize("owned", [(), None])
def test_a_worker_that_never_gets_partitions_exits_if_no_other_member_owns_them(owned: Collection[int] | None) -> None:
    world = World(owned=owned)
    world.group.ends[0] = 3
    assert world.time_until_exit() >= TIMEOUT_S


def test_partitions_of_other_workers_do_not_count() -> None:
    world = World(owned=[0])
    world.group.ends[1] = 1000
    world.advance(10 * TIMEOUT_S)
    assert not world.exits


def test_agents_are_judged_separately() -> None:
    world = World()
    items = Group(1)
    world.watchdog.watch(Agent([0]), items, Gauge("other", "lag", ["partition"], registry=CollectorRegistry()))
    items.ends[0] = 2
    world.time_until_exit(moving=[0, 1])


def test_a_stall_shows_before_it_ends_the_process() -> None:
    world = World()
    world.group.ends[0] = 5
    world.advance(0.4 * TIMEOUT_S)
    assert world.watchdog.stalled_seconds() == {}
    world.advance(0.3 * TIMEOUT_S)
    assert world.watchdog.stalled_seconds()["clicks"] >= TIMEOUT_S / 2


def test_an_agent_whose_start_waits_is_not_stalled() -> None:
    world = World(owned=None)
    world.group.ends[0] = 3
    world.agent.change(started=False)
    world.advance(3 * TIMEOUT_S)
    assert world.watchdog.stalled_seconds() == {}
    world.agent.change(started=True)
    assert world.time_until_exit() >= TIMEOUT_S


def test_owners_are_asked_for_only_while_nothing_is_owned_and_seldom_once_all_are_known() -> None:
    world = World(owned=[0])
    world.advance(100.0)
    assert world.group.asked == []
    world.agent.change(partitions=frozenset())
    world.advance(2 * STEP_S)
    assert world.group.asked == ["owners", "owners"]
    assert world.watchdog.unowned("clicks") == {0, 1}
    world.group.others = {0, 1}
    world.group.asked = []
    world.advance(60.0)
    assert world.group.asked == ["owners"] * 2
    assert world.watchdog.unowned("clicks") == set()
    world.agent.change(partitions=frozenset({0}))
    world.advance(STEP_S)
    assert world.watchdog.unowned("clicks") is None


def test_lag_is_shown_for_owned_partitions_only() -> None:
    world = World(owned=[0, 1])
    world.group.ends = {0: 5, 1: 7}
    world.advance(STEP_S)
    assert {s.labels["partition"]: s.value for m in world.lag.collect() for s in m.samples} == {"0": 5.0, "1": 7.0}
    world.agent.change(partitions=frozenset({1}))
    world.advance(STEP_S)
    assert {s.labels["partition"]: s.value for m in world.lag.collect() for s in m.samples} == {"1": 7.0}
