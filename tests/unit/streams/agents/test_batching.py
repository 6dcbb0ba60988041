"""Batches of messages: none skipped, none twice, none of an older generation."""

from __future__ import annotations

import asyncio

import pytest

from configs.errors import EXIT_DEFECT, EXIT_TRANSIENT, TransientError
from streams.agents import batching
from tests.unit.streams.agents.world import World, run, until


def test_messages_of_an_older_generation_are_discarded_and_never_committed() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.work.offsets == [0])
        await world.faust.revoke()
        world.faust.deliver(1)  # fetched before the move
        world.faust.consumer_generation_id = 2
        world.faust.deliver(1)  # fetched after it, before the agent learned of it
        await world.faust.assign(0)
        world.faust.deliver(2, generation=1)
        world.faust.deliver(2)
        await until(lambda: len(world.work.offsets) == 3)
        await until(lambda: world.faust.commits[-1] == {0: 3})

    assert run(scenario).work.offsets == [0, 1, 2]


@pytest.mark.parametrize("begins", [{0: 5}, {}])
def test_skipping_the_first_messages_ends_the_process(begins: dict[int, int]) -> None:
    async def scenario(world: World) -> None:
        world.faust.start_offsets, world.faust.oldest_offsets = begins, {0: 5}
        await world.faust.assign(0)
        world.faust.deliver(7)
        await until(lambda: world.exits == [EXIT_DEFECT])
        await asyncio.sleep(0.05)
        assert not world.faust.commits

    assert run(scenario).work.offsets == []


def test_skipping_later_messages_ends_the_process() -> None:
    async def scenario(world: World) -> None:
        world.faust.start_offsets, world.faust.oldest_offsets = {0: 5}, {0: 0}
        await world.faust.assign(0)
        world.faust.deliver(5)
        await until(lambda: world.work.offsets == [5])
        world.faust.deliver(9, begin=8)
        await until(lambda: world.exits == [EXIT_DEFECT])

    assert run(scenario).work.offsets == [5]


def test_offsets_without_messages_do_not_count_as_skipped() -> None:
    """Compaction and transaction markers leave gaps between offsets, but not between positions."""

    async def scenario(world: World) -> None:
        world.faust.start_offsets, world.faust.oldest_offsets = {0: 5}, {0: 0}
        await world.faust.assign(0)
        world.faust.deliver(7, begin=5)
        world.faust.deliver(20, begin=8)
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 21})
        assert not world.exits

    assert run(scenario).work.offsets == [7, 20]


def test_messages_that_kafka_has_removed_are_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        world.faust.start_offsets, world.faust.oldest_offsets = {0: 5}, {0: TransientError("Kafka", "unavailable")}
        await world.faust.assign(0)
        world.faust.deliver(9)  # Kafka is asked again
        await until(lambda: world.work.offsets == [9])
        assert not world.exits

    world = run(scenario)
    assert "removed offsets 5 to 8" in caplog.text
    assert world.metrics.removed._value.get() == 4


def test_messages_that_kafka_removed_are_reported_before_the_next_one_arrives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(world: World) -> None:
        world.faust.start_offsets, world.faust.oldest_offsets = {0: 5, 1: 7}, {0: 9, 1: 3}
        await world.faust.assign(0, 1)
        world.agent.begin_reading(0, 5, 9)
        world.agent.begin_reading(1, 7, 3)
        assert "partition 0: Kafka removed offsets 5 to 8" in caplog.text
        world.faust.deliver(9)
        world.faust.deliver(7, partition=1)
        await until(lambda: world.work.offsets == [9, 7])
        assert not world.exits

    assert run(scenario).metrics.removed._value.get() == 4, "they are counted once"


def test_messages_that_kafka_removed_after_they_were_fetched_are_processed() -> None:
    async def scenario(world: World) -> None:
        world.faust.start_offsets, world.faust.oldest_offsets = {0: 5}, {0: 9}
        await world.faust.assign(0)
        world.agent.begin_reading(0, 5, 9)
        world.faust.deliver(5, 6)
        world.faust.deliver(9)
        await until(lambda: world.work.offsets == [5, 6, 9])
        assert not world.exits

    assert run(scenario).metrics.removed._value.get() == 4


def test_a_topic_that_lost_its_end_is_read_from_its_beginning_if_the_hooks_allow_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(world: World) -> None:
        world.faust.start_offsets = {0: 100}
        await world.faust.assign(0)
        world.faust.deliver(0, 1)
        world.faust.deliver(2)
        await until(lambda: world.work.offsets == [0, 1, 2])
        assert not world.exits

    run(scenario)
    assert "lost offset 100; reading again from offset 0" in caplog.text


def test_new_messages_with_the_offsets_of_lost_ones_are_not_skipped(caplog: pytest.LogCaptureFixture) -> None:
    """The topic lost offsets 4 and 5. The client, whose position is 6, is sent back to the oldest message."""

    async def scenario(world: World) -> None:
        world.faust.start_offsets = {0: 3}
        await world.faust.assign(0)
        world.faust.deliver(3, 4, 5)
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 6})
        world.faust.deliver(0, 1, 2, 3, 4, 5, 6, begin=0)
        await until(lambda: world.exits == [EXIT_TRANSIENT])
        await asyncio.sleep(0.05)
        assert world.faust.commits[-1] == {0: 6}

    assert run(scenario).work.offsets == [3, 4, 5]
    assert "partition 0: Kafka has lost offsets before 6" in caplog.text


def test_large_messages_wait_in_the_kafka_client_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MAX_QUEUED_BYTES", 6)

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(*range(20))
        await asyncio.to_thread(world.work.entered.wait, 10)
        await asyncio.sleep(0.05)
        assert world.agent._batcher._queue.qsize() == 3, "of two bytes each"
        world.work.gate.set()
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 20})

    assert run(scenario, look_ahead=False).work.offsets == list(range(20))


def test_a_batch_waits_to_fill_only_if_it_is_configured_to() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        for offset in range(3):
            world.faust.deliver(offset)
            await asyncio.sleep(0.01)
        await until(lambda: len(world.work.offsets) == 3)

    assert run(scenario, batch_wait_s=5.0, batch_size=3).work.batches == [[0, 1, 2]]
    assert len(run(scenario, batch_wait_s=0.0, batch_size=3).work.batches) >= 2


def test_runs_of_several_partitions_are_read_in_the_order_of_each() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0, 1)
        world.faust.deliver_runs((0, [4, 5]), (1, [7, 8]))
        world.faust.deliver_runs((1, [9]), (0, [6]))
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 7, 1: 10})
        assert world.work.offsets == [4, 5, 7, 8, 9, 6]

    run(scenario)
