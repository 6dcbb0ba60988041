"""The agent as a whole: revocation, stop, defects, and its state."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from configs.errors import EXIT_DEFECT, TransientError
from streams.agents.state import AgentState
from tests.unit.streams.agents.world import World, run, until


def test_revocation_waits_for_the_current_batch_and_commits_it() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        for offset in range(8):
            world.faust.deliver(offset)
        await asyncio.to_thread(world.work.entered.wait, 10)
        revoking = asyncio.ensure_future(world.faust.revoke())
        await asyncio.sleep(0.01)
        world.work.gate.set()
        await revoking
        assert world.faust.commits[-1] == {0: len(world.work.offsets)}
        done = len(world.work.offsets)
        assert done < 8, "the queued messages are not processed"
        await asyncio.sleep(0.03)
        assert len(world.work.offsets) == done, "and no other batch is started"

    run(scenario)


def test_a_search_that_outlasts_the_stop_does_no_harm() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.answered.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.waiting.wait, 10)
        await world.agent.stop()
        world.work.answered.set()
        await until(lambda: world.agent.state().call is None)
        await asyncio.sleep(0.03)

    world = run(scenario)
    assert world.exits == []
    assert world.work.log == ["start 1", "wait 1"]


@pytest.mark.parametrize("where", ["commit", "reader", "revocation"])
def test_a_defect_anywhere_ends_the_process(where: str) -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        if where == "reader":
            world.faust.events.put_nowait(SimpleNamespace(message=None))
        elif where == "commit":
            world.faust.commit_results = [ValueError("a defect")]
            world.faust.deliver(0)
        else:
            world.hooks.defect = ValueError("a defect")
            await world.faust.revoke()
        await until(lambda: world.exits == [EXIT_DEFECT])
        assert world.faust.commits == []

    run(scenario)


def test_nothing_starts_after_the_stop() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.work.offsets == [0])
        await asyncio.gather(world.agent.stop(), world.agent.stop())
        assert world.agent.stopped
        assert world.faust.commits == [{0: 1}]
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.faust.deliver(1)
        await asyncio.sleep(0.03)
        assert world.work.offsets == [0]

    run(scenario, commit_interval_s=60.0)


def test_the_state_shows_what_the_agent_does() -> None:
    async def scenario(world: World) -> None:
        assert world.agent.state() == AgentState(True, None, False, False, 0.0, 0, None, 0.0)
        await world.faust.assign(3, 0)
        await until(lambda: world.agent.state().acquired)
        before = world.agent.state()
        assert before.partitions == frozenset({0, 3})
        world.work.gate.clear()
        world.work.faults = [TransientError("Milvus", "unavailable")]
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        assert world.agent.state().call == "a batch of 1 messages"
        assert world.agent.state().retrying_s == 0.0
        world.work.entered.clear()
        world.work.gate.set()
        await asyncio.to_thread(world.work.entered.wait, 10)
        await until(lambda: world.work.offsets == [0])
        await until(lambda: world.agent.state().call is None)
        assert world.agent.state().idle_count > before.idle_count
        await world.faust.revoke()
        assert world.agent.state().partitions is None

    run(scenario)


def test_the_consumer_waits_for_the_current_batch_but_not_for_long() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        await until(lambda: world.agent.state().acquired)
        await asyncio.wait_for(world.agent.between_batches(60), 1)  # no batch is in progress
        world.work.gate.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        started = time.monotonic()
        await world.agent.between_batches(0.05)
        assert time.monotonic() - started >= 0.05
        waiting = asyncio.ensure_future(world.agent.between_batches(60))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        world.work.gate.set()
        await asyncio.wait_for(waiting, 1)

    run(scenario)
