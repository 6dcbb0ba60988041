"""Commits follow the processing, and are retried when they fail."""

from __future__ import annotations

import asyncio

from tests.unit.streams.agents.world import World, run, until


def test_messages_are_processed_in_order_in_batches_and_then_committed() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0, 1)
        for offset in range(10):
            world.faust.deliver(offset)
        world.faust.deliver(7, partition=1)
        await until(lambda: len(world.work.offsets) == 11)
        await until(lambda: {0: 10, 1: 8}.items() <= {k: v for c in world.faust.commits for k, v in c.items()}.items())

    world = run(scenario)
    assert world.work.offsets == [*range(10), 7]
    assert max(map(len, world.work.batches)) <= 4


def test_nothing_is_committed_before_it_is_processed() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await asyncio.sleep(0.05)  # several commit intervals
        assert world.faust.commits == []
        world.work.gate.set()
        await until(lambda: world.faust.commits == [{0: 1}])

    run(scenario)


def test_a_failed_commit_is_retried() -> None:
    async def scenario(world: World) -> None:
        world.faust.commit_results = [False, False]
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])

    assert run(scenario).exits == []


def test_a_batch_that_outlasts_its_partition_is_not_committed() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(5)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await world.faust.revoke()  # stops waiting after its timeout
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.work.gate.set()
        await until(lambda: world.work.offsets == [5])
        await asyncio.sleep(0.05)
        assert world.faust.commits == []
        world.faust.deliver(5)
        await until(lambda: world.faust.commits == [{0: 6}])

    run(scenario)


def test_the_text_beside_an_offset_is_that_of_its_batch() -> None:
    async def scenario(world: World) -> None:
        world.faust.commit_results = [False]  # and is committed with it, however often that fails
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])
        assert world.faust.metadata == {0: "partition 0, batch 1"}
        world.faust.deliver(1)
        await until(lambda: world.faust.commits[-1] == {0: 2})
        assert world.faust.metadata == {0: "partition 0, batch 2"}

    run(scenario)
