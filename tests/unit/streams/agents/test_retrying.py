"""Retries of transient errors, and what ends them."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from configs.errors import EXIT_CONFIG, EXIT_DEFECT, EXIT_TRANSIENT, FatalError, TransientError
from streams.agents.retrying import RetryPolicy
from streams.errors import RefusedData, RestartRequired
from tests.unit.streams.agents.world import World, run, until


def test_a_transient_fault_is_retried_with_the_same_messages() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Milvus", "unavailable")] * 3
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])

    world = run(scenario)
    assert world.work.batches == [[0]]
    assert world.exits == []


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (TransientError("Milvus", "unavailable"), EXIT_TRANSIENT),
        (FatalError("no"), EXIT_CONFIG),
        (RestartRequired("the collection was recreated"), EXIT_TRANSIENT),
        (ValueError("a defect"), EXIT_DEFECT),
    ],
)
def test_an_error_that_no_retry_fixes_ends_the_process_without_commit(fault: Exception, status: int) -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [fault] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.exits)
        await asyncio.sleep(0.03)

    world = run(scenario, retry=RetryPolicy(first_s=0.001, longest_s=0.002, budget_s=0.02))
    assert world.exits[0] == status
    assert world.faust.commits == []


def test_a_batch_that_is_being_retried_is_abandoned_when_partitions_move() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Milvus", "unavailable")] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        started = time.monotonic()
        await world.faust.revoke()
        assert time.monotonic() - started < 1.0
        world.work.faults.clear()
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])

    run(scenario, retry=RetryPolicy(first_s=30.0, longest_s=30.0, budget_s=60.0), revoke_timeout_s=5.0)


def test_a_batch_of_an_earlier_generation_is_not_retried_when_its_partitions_return() -> None:
    """It outlasted the timeout of the revocation, and fails only now: its messages are read again later."""

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.work.faults = [TransientError("Milvus", "unavailable")]
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await world.faust.revoke()
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.work.gate.set()
        await until(lambda: not world.work.faults)
        world.faust.deliver(5)
        await until(lambda: world.faust.commits == [{0: 6}])

    assert run(scenario, revoke_timeout_s=0.05).work.batches == [[5]]


def test_the_stop_does_not_wait_for_a_batch_that_is_being_retried() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Milvus", "unavailable")] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.agent.state().retrying_s)
        started = time.monotonic()
        await world.agent.stop()
        assert time.monotonic() - started < 1.5

    run(scenario, retry=RetryPolicy(first_s=30.0, longest_s=30.0, budget_s=60.0))


def test_waits_grow_with_jitter_up_to_the_longest() -> None:
    waits = RetryPolicy(first_s=1.0, longest_s=8.0, budget_s=60.0).waits(random.Random(0))
    drawn = [next(waits) for _ in range(8)]
    for wait, most in zip(drawn, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    assert len(set(drawn)) == 8


def test_data_that_is_refused_outside_of_a_batch_ends_the_process_without_commit() -> None:
    def acquire(_: object) -> None:
        raise RefusedData("Milvus", "invalid parameter")

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.exits)

    world = run(scenario, acquire=acquire)
    assert (world.exits[0], world.faust.commits) == (EXIT_CONFIG, [])
