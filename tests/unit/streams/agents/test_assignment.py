"""Partitions that are assigned, acquired, maintained and revoked, and the lease for them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from configs.errors import EXIT_DEFECT, TransientError
from streams.agents.assignment import Assignment
from streams.agents.commits import Commits
from streams.clock import boot_clock
from streams.errors import PartitionLost
from streams.ports import Message
from tests.unit.streams.agents.world import Recorder, Started, World, run, until


def test_partitions_are_acquired_before_their_first_message_and_released_after_the_last() -> None:
    calls: list[str] = []

    async def scenario(world: World) -> None:
        await world.faust.assign(0, 2)
        await until(lambda: calls == ["acquire [0, 2]"])
        world.faust.deliver(0)
        await until(lambda: world.work.offsets == [0])
        await world.faust.revoke()
        assert calls[1:] == ["release"]
        world.faust.consumer_generation_id = 2
        await world.faust.assign(1)
        await until(lambda: calls[2:] == ["acquire [1]"])

    run(scenario, acquire=lambda p: calls.append(f"acquire {p}"), release=lambda: calls.append("release"))


def test_messages_wait_until_acquiring_succeeds() -> None:
    faults: list[Exception] = [TransientError("Kafka", "unavailable")] * 3

    def acquire(_: object) -> None:
        if faults:
            raise faults.pop()

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])
        assert not faults

    run(scenario, acquire=acquire)


def test_restoring_ends_at_once_when_partitions_move() -> None:
    lost = threading.Event()

    def restore(_: object) -> None:
        if not lost.wait(10):
            raise AssertionError("the partitions were not released")
        raise PartitionLost("gone")

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        await until(lambda: world.agent.state().acquiring)
        started = time.monotonic()
        await world.faust.revoke()
        assert time.monotonic() - started < 5.0
        assert not world.agent.state().acquiring

    assert run(scenario, acquire=restore, release=lost.set, revoke_timeout_s=9.0).exits == []


def test_a_partition_that_is_lost_without_a_revocation_is_a_defect() -> None:
    """Partitions are released only when the group revokes them: a worker that continued would stall."""

    async def scenario(world: World) -> None:
        world.work.faults = [PartitionLost("gone")]
        await world.faust.assign(0)
        world.faust.deliver(0, 1)
        await until(lambda: world.exits == [EXIT_DEFECT])
        await asyncio.sleep(0.03)

    world = run(scenario)
    assert world.faust.commits == []
    assert world.work.offsets == []


def test_maintenance_that_outlasts_its_partitions_does_not_let_old_messages_through() -> None:
    held, entered, holding = threading.Event(), threading.Event(), threading.Event()

    def maintain(_: object) -> None:
        if holding.is_set():
            entered.set()
            assert held.wait(10)

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        world.faust.deliver(1)
        holding.set()
        await asyncio.sleep(0.05)  # until the next batch says that maintenance is due
        world.work.gate.set()
        await asyncio.to_thread(entered.wait, 10)
        await world.faust.revoke()  # stops waiting after its timeout
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        holding.clear()
        held.set()
        world.faust.deliver(5)
        await until(lambda: {0: 6} in world.faust.commits)

    work = run(scenario, maintain=maintain, maintain_interval_s=0.005, revoke_timeout_s=0.05, look_ahead=False).work
    assert work.batches == [[0], [5]]


def test_partitions_are_maintained_between_batches_and_while_idle() -> None:
    maintained: list[list[int]] = []

    async def scenario(world: World) -> None:
        await asyncio.sleep(0.05)
        assert maintained == [], "nothing is owned yet"
        await world.faust.assign(0, 3)
        await until(lambda: len(maintained) > 1)
        for offset in range(40):
            world.faust.deliver(offset)
        await until(lambda: len(world.work.offsets) == 40)
        await world.faust.revoke()
        seen = len(maintained)
        await asyncio.sleep(0.05)
        assert len(maintained) == seen

    world = run(scenario, maintain=lambda owned: maintained.append(list(owned)), maintain_interval_s=0.005)
    assert world.work.offsets == list(range(40))
    assert maintained[0] == [0, 3]


def test_partitions_are_maintained_before_their_turn_when_the_hooks_ask_for_it() -> None:
    maintained: list[float] = []

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        await until(lambda: world.agent.state().acquired)
        assert maintained == []
        world.hooks.due = lambda: True
        await until(lambda: maintained)  # long before its turn
        world.hooks.due = lambda: False

    run(scenario, maintain=lambda _: maintained.append(time.monotonic()), maintain_interval_s=60.0)


def test_partitions_are_maintained_under_a_backlog() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(*range(100))
        await asyncio.to_thread(world.work.entered.wait, 10)
        await until(world.agent._batcher._queue.full)
        maintained.clear()
        world.agent._batcher.request_maintenance()
        world.work.gate.set()
        await until(lambda: len(world.work.offsets) == 100)
        assert len(maintained) == 1

    maintained: list[object] = []
    run(scenario, maintain=maintained.append, look_ahead=False)


def test_a_batch_is_processed_under_a_lease_that_a_commit_has_proved() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0, 1)
        world.faust.deliver_runs((0, [5, 6]), (1, [2]))
        await until(lambda: world.work.offsets == [5, 6, 2])
        assert world.faust.commits[0] == {0: 5, 1: 2}, "the offsets at which the batch begins, before it is processed"
        await until(lambda: world.faust.commits[-1] == {0: 7, 1: 3})
        world.faust.deliver(7)
        await until(lambda: world.faust.commits[-1] == {0: 8})
        assert len(world.faust.commits) == 3, "the last commit is proof enough"

    run(scenario, lease_s=60.0, commit_interval_s=0.1)


def test_nothing_is_processed_without_proof() -> None:
    async def scenario(world: World) -> None:
        world.faust.commit_results = [False, False]
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.work.batches)
        assert world.faust.commit_results == []

    run(scenario, lease_s=60.0, commit_interval_s=60.0)


def test_a_zombie_abandons_its_batch() -> None:
    async def scenario(world: World) -> None:
        world.faust.commit_results = [False] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: len(world.faust.commit_results) < 998)
        await world.faust.revoke()
        world.faust.commit_results, world.faust.consumer_generation_id = [], 2
        await world.faust.assign(0)
        world.faust.deliver(7, begin=7)
        await until(lambda: world.work.offsets == [7])

    run(scenario, lease_s=60.0, commit_interval_s=60.0)


def test_a_batch_whose_lease_expired_in_between_is_retried() -> None:
    worlds: list[World] = []
    tries: list[str] = []

    class Work(Recorder):
        def finish(self, pending: Started) -> None:
            if not tries:
                time.sleep(0.25)
            tries.append("begun")
            worlds[0].assignment.require_lease()
            tries.append("done")

    async def scenario(world: World) -> None:
        worlds.append(world)
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: "done" in tries)

    world = run(scenario, processor=Work(), lease_s=0.2, commit_interval_s=60.0)
    assert tries == ["begun", "begun", "done"]
    assert world.faust.commits == [{0: 0}, {0: 0}, {0: 1}]


def test_there_is_no_lease_once_the_partitions_are_revoked() -> None:
    worlds: list[World] = []
    faults: list[TransientError] = []

    class Work(Recorder):
        def finish(self, pending: Started) -> None:
            super().finish(pending)
            try:
                worlds[0].assignment.require_lease()
            except TransientError as error:
                faults.append(error)

    async def scenario(world: World) -> None:
        worlds.append(world)
        world.work.gate.clear()
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(world.work.entered.is_set)
        await world.faust.revoke()
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)  # to be read from the committed offset
        world.work.gate.set()
        await until(lambda: faults)

    run(scenario, processor=Work(), lease_s=60.0, commit_interval_s=60.0)


def test_the_states_of_an_assignment() -> None:
    async def scenario() -> None:
        assignment = Assignment()
        assert (assignment.generation, assignment.acquired, assignment.revoked) == (None, False, False)
        assignment.assign(4, [2, 0])
        assert (assignment.generation, assignment.partitions, assignment.acquired) == (4, [0, 2], False)
        assignment.set_acquired(4)
        assert assignment.acquired
        assert not await assignment.revoked_within(0.001)
        assignment.revoke()
        assert assignment.acquired and assignment.revoked
        assert await assignment.revoked_within(1.0)
        assignment.unassign()
        assert (assignment.generation, assignment.acquired) == (None, False)
        assignment.assign(5, [0])
        assert (assignment.acquired, assignment.revoked) == (False, False)

    asyncio.run(scenario())


def test_a_lease_is_needed_only_where_one_is_asked_for() -> None:
    unleased, leased = Assignment(), Assignment(lease_s=60.0)
    for assignment in (unleased, leased):
        assignment.assign(1, [0])
        assignment.begin_call()
    unleased.require_lease()
    with pytest.raises(TransientError, match="paused"):
        leased.require_lease()
    leased.prove(boot_clock() - 61.0)
    assert not leased.leased()
    leased.prove(boot_clock() - 59.0)
    leased.require_lease()
    leased.assign(2, [0])
    with pytest.raises(TransientError):
        leased.require_lease()


def test_a_lease_ends_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux' monotonic clock stops meanwhile; the broker's session does not."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("this system has no such clock")
    suspended_s = 0.0
    clock_gettime = time.clock_gettime
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: clock_gettime(clock) + suspended_s * (clock == time.CLOCK_BOOTTIME)
    )
    assignment = Assignment(lease_s=60.0)
    assignment.assign(1, [0])
    assignment.begin_call()
    assignment.prove(boot_clock())
    assignment.require_lease()
    suspended_s = 61.0
    with pytest.raises(TransientError, match="paused"):
        assignment.require_lease()


def test_an_accepted_commit_proves_the_lease_by_the_same_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs: list[float] = []

    async def accept(_: object) -> bool:
        return True

    async def scenario() -> None:
        commits = Commits(accept, proofs.append, lambda _: "")
        commits.done([Message("items", 0, 4, b"1", None)])
        before = boot_clock()
        await commits.commit()
        assert before <= proofs[0] <= boot_clock()

    monkeypatch.setattr(time, "monotonic", lambda: 10.0**9)
    asyncio.run(scenario())
