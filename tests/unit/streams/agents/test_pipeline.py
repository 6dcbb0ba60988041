"""The next batch, started while the current one is finished."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from configs.errors import TransientError
from streams.agents.batching import Batch
from streams.agents.pipeline import Pipeline, Work, without_pending
from streams.errors import PartitionLost
from streams.ports import Message
from tests.unit.streams.agents.world import TOPIC, Recorder, Started, World, run, until


@pytest.mark.parametrize("look_ahead", [True, False])
def test_the_next_batch_is_started_after_the_current_one(look_ahead: bool) -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        for offset in range(1, 10):
            world.faust.deliver(offset)
        await asyncio.sleep(0.05)
        world.work.gate.set()
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 10})

    log = run(scenario, look_ahead=look_ahead).work.log
    if look_ahead:
        full = ["start 4", "start 4 after 4", "wait 4", "finish 4"]  # a full batch is started early
        rest = ["wait 4", "start 1 after 4", "finish 4", "wait 1", "finish 1"]  # others as late as possible
        assert log == ["start 1", "wait 1", "finish 1", *full, *rest]
    else:
        assert log == [f"{call} {n}" for n in (1, 4, 4, 1) for call in ("start", "wait", "finish")]


def test_messages_that_arrive_during_a_search_are_started_after_its_batch() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.answered.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.waiting.wait, 10)
        world.faust.deliver(1, 2)
        await asyncio.sleep(0.05)
        world.work.answered.set()
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 3})

    assert run(scenario).work.log == ["start 1", "wait 1", "start 2 after 1", "finish 1", "wait 2", "finish 2"]


def test_maintenance_never_comes_between_a_batch_and_one_started_after_it() -> None:
    class Work(Recorder):
        request_maintenance: Callable[[], object]

        def finish(self, pending: Started) -> None:
            super().finish(pending)
            if len(self.batches) % 3 == 0:
                self.request_maintenance()

    async def scenario(world: World) -> None:
        loop = asyncio.get_running_loop()
        work.request_maintenance = lambda: loop.call_soon_threadsafe(world.agent._batcher.request_maintenance)
        await world.faust.assign(0)
        world.faust.deliver(*range(400))
        await until(lambda: len(work.offsets) == 400)

    work = Work()
    run(scenario, processor=work, maintain=lambda _: work.log.append("maintain"), maintain_interval_s=60.0)
    assert work.log.count("maintain") > 5
    assert work.log.count("start 4 after 4") > 20
    pending = 0  # batches that were started and not finished
    for call in work.log:
        pending += call.startswith("start") - call.startswith("finish")
        assert call != "maintain" or pending == 0


def test_a_batch_started_after_one_that_failed_is_started_again() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Kafka", "unavailable")]
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(*range(4))
        await asyncio.to_thread(world.work.entered.wait, 10)
        world.work.gate.set()
        world.faust.deliver(*range(4, 8))
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 8})

    world = run(scenario, batch_size=4)
    assert world.work.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    finishes = [i for i, call in enumerate(world.work.log) if call == "finish 4"]
    assert "start 4" in world.work.log[finishes[0] :], "nothing that was started before a failure is used"


def test_a_batch_started_ahead_is_discarded_when_partitions_move() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        for offset in range(8):
            world.faust.deliver(offset)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await world.faust.revoke()  # stops waiting after its timeout
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.work.gate.set()
        await asyncio.sleep(0.05)
        assert world.faust.commits == []
        for offset in range(8):
            world.faust.deliver(offset)
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 8})

    work = run(scenario, revoke_timeout_s=0.05).work
    assert work.offsets[-8:] == list(range(8))
    assert work.offsets[:-8] == list(range(len(work.offsets) - 8)), "only the current batch was finished"


def test_a_search_that_outlasts_its_partitions_does_not_reach_the_next_generation() -> None:
    faults: list[Exception] = []

    async def scenario(world: World) -> None:
        world.work.faults = faults
        await world.faust.assign(0)
        world.work.answered.clear()
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.waiting.wait, 10)
        await world.faust.revoke()  # stops waiting after its timeout
        faults.append(PartitionLost("not acquired yet"))
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.faust.deliver(5)
        world.work.answered.set()
        await until(lambda: world.faust.commits == [{0: 6}])

    world = run(scenario, acquire=lambda _: faults.clear(), revoke_timeout_s=0.05)
    assert world.work.batches == [[5]]
    assert world.exits == []


@pytest.mark.parametrize("call", ["start", "wait", "finish"])
@pytest.mark.parametrize("look_ahead", [True, False])
def test_one_refused_message_costs_one_dead_letter(call: str, look_ahead: bool) -> None:
    async def scenario(world: World) -> None:
        world.work.poison, world.work.refuses = frozenset({1, 6, 7}), call
        await world.faust.assign(0)
        world.faust.deliver(*range(12))
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 12})

    world = run(scenario, look_ahead=look_ahead)
    assert world.work.refused == [1, 6, 7]
    assert world.work.offsets == [0, 2, 3, 4, 5, 8, 9, 10, 11], "all others are processed, once and in order"
    assert world.exits == []


def test_a_fault_while_a_refused_batch_is_divided_is_retried() -> None:
    async def scenario(world: World) -> None:
        world.work.poison = frozenset({3})
        world.work.faults = [TransientError("Kafka", "unavailable")]
        await world.faust.assign(0)
        world.faust.deliver(*range(4))
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 4})

    work = run(scenario).work
    assert (work.refused, work.offsets) == ([3], [0, 1, 2])


def _work(*offsets: int) -> Work[Started]:
    return Work(Batch(1, [Message(TOPIC, 0, offset, b"k", b"v") for offset in offsets], maintain=False))


def test_a_batch_started_on_a_discarded_one_is_started_again() -> None:
    recorder = Recorder()
    pipeline = Pipeline(recorder)
    work, next_work = _work(0), _work(1, 2)
    next_work.pending = recorder.start(next_work.batch.messages, recorder.start(work.batch.messages, None))
    stale, recorder.log = next_work.pending, []
    pipeline.finish(work, next_work)
    assert recorder.log == ["start 1", "start 2 after 1", "finish 1"]
    assert next_work.pending is not None and next_work.pending is not stale


def test_an_abandoned_batch_leaves_the_next_one_as_not_started() -> None:
    work = _work(0)
    work.pending = Recorder().start(work.batch.messages, None)
    left = without_pending(work)
    assert left is not None and left.batch is work.batch and left.pending is None
    assert without_pending(None) is None
