"""Batching, retries and commits of an agent, with Faust's part played by a small fake."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from configs.errors import EXIT_CONFIG, EXIT_DEFECT, EXIT_TRANSIENT, FatalError, TransientError
from streams.agents import batching as intake
from streams.agents.agent import BatchAgent
from streams.agents.batching import FetchedRun
from streams.agents.retrying import RetryPolicy
from streams.agents.state import AgentState
from streams.errors import PartitionLost
from streams.metrics import BatchMetrics
from streams.ports import Message

TOPIC = "clicks"


class FakeFaust:
    """As much of a Faust app as an agent touches: it delivers events, moves partitions and records commits."""

    def __init__(self) -> None:
        self.consumer_generation_id = 1
        self.commits: list[dict[int, int]] = []
        self.refused: list[bool | Exception] = []  # what the next commits end with, instead of success
        self.consumer = SimpleNamespace(_commit=self._commit, sought=self._sought, oldest=self._oldest)
        self.begins: dict[int, int] = {}  # partition → committed offset that reading began at
        self.kept: dict[int, int | TransientError] = {}  # partition → oldest offset, if not that of the first run
        self._positions: dict[int, int] = {}
        self.on_partitions_revoked = SimpleNamespace(connect=self._on("revoked"))
        self.on_partitions_assigned = SimpleNamespace(connect=self._on("assigned"))
        self._callbacks: dict[str, Any] = {}
        self._tasks: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._receive: Any = None
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def topic(self, name: str, **options: Any) -> str:
        assert options["acks"] is False, "Faust must not commit by itself"
        return name

    def agent(self, channel: str, name: str) -> Callable[[Any], None]:
        return lambda receive: setattr(self, "_receive", receive)

    def task(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(task)

    def _on(self, name: str) -> Callable[..., None]:
        return lambda callback, weak: self._callbacks.__setitem__(name, callback)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        if self.refused:
            end = self.refused.pop(0)
            if isinstance(end, Exception):
                raise end
            return end
        self.commits.append({tp.partition: offset for tp, offset in offsets.items()})
        return True

    def _sought(self, tp: TP) -> int | None:
        return self.begins.get(tp.partition)

    async def _oldest(self, tp: TP) -> int:
        oldest = self.kept.get(tp.partition, 10**9)
        if isinstance(oldest, TransientError):
            del self.kept[tp.partition]
            raise oldest
        return oldest

    def noack(self) -> FakeFaust:
        return self

    async def _stream(self) -> AsyncIterator[Any]:
        while True:
            yield await self.events.get()

    def start(self) -> list[asyncio.Task[None]]:
        stream = SimpleNamespace(noack=lambda: SimpleNamespace(events=self._stream))
        coroutines = [self._receive(stream), *(task() for task in self._tasks)]
        return [asyncio.get_running_loop().create_task(c) for c in coroutines]

    def deliver(
        self, *offsets: int, partition: int = 0, generation: int | None = None, begin: int | None = None
    ) -> None:
        """A run of messages, which begins where the last one ended, or is read again, unless told."""
        self.deliver_runs((partition, offsets), generation=generation, begin=begin)

    def deliver_runs(
        self, *runs: tuple[int, Sequence[int]], generation: int | None = None, begin: int | None = None
    ) -> None:
        """Runs of several partitions."""
        value = []
        for partition, offsets in runs:
            records = [
                SimpleNamespace(
                    topic=TOPIC, partition=partition, offset=n, key=b"k", value=b"v", headers=(), timestamp=10**6
                )
                for n in offsets
            ]
            position = min(self._positions.get(partition, offsets[0]), offsets[0])
            self._positions[partition] = offsets[-1] + 1
            value.append(FetchedRun(position if begin is None else begin, offsets[-1] + 1, records))
        generation = self.consumer_generation_id if generation is None else generation
        message = SimpleNamespace(value=value, generation_id=generation)
        self.events.put_nowait(SimpleNamespace(message=message))

    async def assign(self, *partitions: int) -> None:
        await self._callbacks["assigned"](self, {TP(TOPIC, p) for p in partitions})

    async def revoke(self) -> None:
        await self._callbacks["revoked"](self, set())


class Recorder:
    """The processing: records batches, fails as told, can be held in the middle of a batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.calls: list[tuple[Sequence[Message], Sequence[Message]]] = []  # messages and what follows them
        self.prepared: list[tuple[Sequence[Message], Sequence[Message]]] = []
        self.answered = threading.Event()
        self.answered.set()
        self.faults: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def prepare(self, messages: Sequence[Message], following: Sequence[Message]) -> None:
        self.prepared.append((messages, following))
        assert self.answered.wait(10)

    def __call__(self, messages: Sequence[Message], following: Sequence[Message]) -> None:
        self.calls.append((messages, following))
        self.entered.set()
        assert self.gate.wait(10)
        if self.faults:
            raise self.faults.pop(0)
        self.batches.append([m.offset for m in messages])

    @property
    def offsets(self) -> list[int]:
        return [offset for batch in self.batches for offset in batch]


class World:
    def __init__(self, **options: Any) -> None:
        self.faust = FakeFaust()
        self.work = Recorder()
        self.exits: list[int] = []
        self.defect: Exception | None = None  # raised where partitions are let go
        settings: dict[str, Any] = {
            "process": self.work,
            "size": 4,
            "wait": 0.0,
            "prepare": self.work.prepare,
            "retry": RetryPolicy(first=0.001, longest=0.01, budget=60.0),
            "let_go": self._let_go,
            "commit_interval": 0.01,
            "revoke_patience": 0.2,
            "metrics": BatchMetrics(CollectorRegistry(), "clicks"),
        }
        app: Any = self.faust
        self.agent = BatchAgent(app, TOPIC, leave=self.exits.append, **settings | options)
        self.tasks: list[asyncio.Task[None]] = []

    def _let_go(self) -> None:
        if self.defect is not None:
            defect, self.defect = self.defect, None
            raise defect

    async def __aenter__(self) -> World:
        self.tasks = self.faust.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.work.gate.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.agent.stop()


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited 10 s in vain"
        await asyncio.sleep(0.002)


def run(scenario: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> World:
    async def main() -> World:
        async with World(**options) as world:
            await scenario(world)
            return world

    return asyncio.run(main())


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


def test_a_transient_fault_is_retried_with_the_same_messages() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Milvus", "away")] * 3
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])

    world = run(scenario)
    assert world.work.batches == [[0]]
    assert world.exits == []


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (TransientError("Milvus", "away"), EXIT_TRANSIENT),
        (FatalError("no"), EXIT_CONFIG),
        (ValueError("a defect"), EXIT_DEFECT),
    ],
)
def test_what_cannot_go_on_leaves_the_process_without_commit(fault: Exception, status: int) -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [fault] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.exits)
        await asyncio.sleep(0.03)

    world = run(scenario, retry=RetryPolicy(first=0.001, longest=0.002, budget=0.02))
    assert world.exits[0] == status
    assert world.faust.commits == []


def test_revocation_waits_for_the_batch_in_hand_and_commits_it() -> None:
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
        assert done < 8, "the queue is not worked off"
        await asyncio.sleep(0.03)
        assert len(world.work.offsets) == done, "and nothing more is taken"

    run(scenario)


def test_messages_of_an_older_generation_are_forgotten_and_never_committed() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.work.offsets == [0])
        await world.faust.revoke()
        world.faust.deliver(1)  # fetched before the move
        world.faust.consumer_generation_id = 2
        world.faust.deliver(1)  # fetched after it, before the agent was told
        await world.faust.assign(0)
        world.faust.deliver(2, generation=1)
        world.faust.deliver(2)
        await until(lambda: len(world.work.offsets) == 3)
        await until(lambda: world.faust.commits[-1] == {0: 3})

    assert run(scenario).work.offsets == [0, 1, 2]


def test_a_batch_that_outlasts_its_partition_is_not_committed() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(5)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await world.faust.revoke()  # gives up waiting after its patience
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.work.gate.set()
        await until(lambda: world.work.offsets == [5])
        await asyncio.sleep(0.05)
        assert world.faust.commits == []
        world.faust.deliver(5)
        await until(lambda: world.faust.commits == [{0: 6}])

    run(scenario)


def test_a_batch_that_waits_for_milvus_is_given_up_when_partitions_move() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Milvus", "away")] * 1000
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

    run(scenario, retry=RetryPolicy(first=30.0, longest=30.0, budget=60.0), revoke_patience=5.0)


def test_a_partition_that_is_lost_while_nobody_takes_it_is_a_defect() -> None:
    """Partitions are let go when the group takes them, and never else: a worker that went on would stand still."""

    async def scenario(world: World) -> None:
        world.work.faults = [PartitionLost("gone")]
        await world.faust.assign(0)
        world.faust.deliver(0, 1)
        await until(lambda: world.exits == [EXIT_DEFECT])
        await asyncio.sleep(0.03)

    world = run(scenario)
    assert world.faust.commits == []
    assert world.work.offsets == []


def test_a_search_that_outlasts_its_partitions_does_not_reach_the_next_generation() -> None:
    faults: list[Exception] = []

    async def scenario(world: World) -> None:
        world.work.faults = faults
        await world.faust.assign(0)
        world.work.answered.clear()
        world.faust.deliver(0)
        await until(lambda: world.work.prepared)
        await world.faust.revoke()  # gives up waiting after its patience
        faults.append(PartitionLost("not taken over yet"))
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.faust.deliver(5)
        world.work.answered.set()
        await until(lambda: world.faust.commits == [{0: 6}])

    world = run(scenario, take_over=lambda _: faults.clear(), revoke_patience=0.05)
    assert world.work.batches == [[5]]
    assert world.exits == []


def test_looking_after_partitions_that_outlasts_them_does_not_let_old_messages_through() -> None:
    held, entered, holding = threading.Event(), threading.Event(), threading.Event()

    def tend(_: object) -> None:
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
        await asyncio.sleep(0.05)  # until the next batch has partitions to be looked after
        world.work.gate.set()
        await asyncio.to_thread(entered.wait, 10)
        await world.faust.revoke()  # gives up waiting after its patience
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        holding.clear()
        held.set()
        world.faust.deliver(5)
        await until(lambda: {0: 6} in world.faust.commits)

    work = run(scenario, tend=tend, tend_interval=0.005, revoke_patience=0.05, prepare=None).work
    assert work.batches == [[0], [5]]


def test_a_search_that_outlasts_the_stop_ends_quietly() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.answered.clear()
        world.faust.deliver(0)
        await until(lambda: world.work.prepared)
        await world.agent.stop()
        world.work.answered.set()
        await until(lambda: world.agent.state().doing is None)
        await asyncio.sleep(0.03)

    world = run(scenario)
    assert world.exits == []
    assert world.work.calls == []


def test_a_batch_of_earlier_partitions_is_not_tried_again_when_they_come_back() -> None:
    """It outlasted the patience of the revocation and fails only now: its messages come again, maybe after others."""

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.work.faults = [TransientError("Milvus", "away")]
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await world.faust.revoke()
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.work.gate.set()
        await until(lambda: not world.work.faults)
        world.faust.deliver(5)
        await until(lambda: world.faust.commits == [{0: 6}])

    assert run(scenario, revoke_patience=0.05).work.batches == [[5]]


def test_restoring_ends_at_once_when_partitions_move() -> None:
    lost = threading.Event()

    def restore(_: object) -> None:
        if not lost.wait(10):
            raise AssertionError("was not told")
        raise PartitionLost("gone")

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        await until(lambda: world.agent.state().restoring)
        started = time.monotonic()
        await world.faust.revoke()
        assert time.monotonic() - started < 5.0
        assert not world.agent.state().restoring

    assert run(scenario, take_over=restore, let_go=lost.set, revoke_patience=9.0).exits == []


def test_a_failed_commit_is_tried_again() -> None:
    async def scenario(world: World) -> None:
        world.faust.refused = [False, False]
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])

    assert run(scenario).exits == []


@pytest.mark.parametrize("where", ["commit", "reader", "revocation"])
def test_a_defect_anywhere_leaves_the_process(where: str) -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        if where == "reader":
            world.faust.events.put_nowait(SimpleNamespace(message=None))
        elif where == "commit":
            world.faust.refused = [ValueError("a defect")]
            world.faust.deliver(0)
        else:
            world.defect = ValueError("a defect")
            await world.faust.revoke()
        await until(lambda: world.exits == [EXIT_DEFECT])
        assert world.faust.commits == []

    run(scenario)


def test_nothing_begins_again_after_the_stop() -> None:
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

    run(scenario, commit_interval=60.0)


def test_the_stop_does_not_wait_for_a_batch_that_is_tried_again() -> None:
    async def scenario(world: World) -> None:
        world.work.faults = [TransientError("Milvus", "away")] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.agent.state().retrying)
        started = time.monotonic()
        await world.agent.stop()
        assert time.monotonic() - started < 1.5

    run(scenario, retry=RetryPolicy(first=30.0, longest=30.0, budget=60.0))


def test_the_state_tells_what_the_agent_is_at() -> None:
    async def scenario(world: World) -> None:
        assert world.agent.state() == AgentState(None, False, False, 0.0, 0, None, 0.0)
        await world.faust.assign(3, 0)
        await until(lambda: world.agent.state().restored)
        before = world.agent.state()
        assert before.owned == frozenset({0, 3})
        world.work.gate.clear()
        world.work.faults = [TransientError("Milvus", "away")]
        world.faust.deliver(0)
        await asyncio.to_thread(world.work.entered.wait, 10)
        assert world.agent.state().doing == "a batch of 1 messages"
        assert world.agent.state().retrying == 0.0
        world.work.entered.clear()
        world.work.gate.set()
        await asyncio.to_thread(world.work.entered.wait, 10)
        await until(lambda: world.work.offsets == [0])
        await until(lambda: world.agent.state().doing is None)
        assert world.agent.state().emptied > before.emptied
        await world.faust.revoke()
        assert world.agent.state().owned is None

    run(scenario)


def test_partitions_are_taken_over_before_their_first_message_and_let_go_after_the_last() -> None:
    calls: list[str] = []

    async def scenario(world: World) -> None:
        await world.faust.assign(0, 2)
        await until(lambda: calls == ["take over [0, 2]"])
        world.faust.deliver(0)
        await until(lambda: world.work.offsets == [0])
        await world.faust.revoke()
        assert calls[1:] == ["let go"]
        world.faust.consumer_generation_id = 2
        await world.faust.assign(1)
        await until(lambda: calls[2:] == ["take over [1]"])

    run(scenario, take_over=lambda p: calls.append(f"take over {p}"), let_go=lambda: calls.append("let go"))


def test_messages_wait_until_taking_over_succeeds() -> None:
    faults: list[Exception] = [TransientError("Kafka", "away")] * 3

    def take_over(_: object) -> None:
        if faults:
            raise faults.pop()

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.faust.commits == [{0: 1}])
        assert not faults

    run(scenario, take_over=take_over)


def test_a_message_delivered_twice_is_processed_once() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        for offset in (0, 1, 1, 0, 2):
            world.faust.deliver(offset)
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 3})

    assert run(scenario).work.offsets == [0, 1, 2]


@pytest.mark.parametrize("begins", [{0: 5}, {}])
def test_passing_over_the_first_messages_is_never_silent(begins: dict[int, int]) -> None:
    async def scenario(world: World) -> None:
        world.faust.begins, world.faust.kept = begins, {0: 5}
        await world.faust.assign(0)
        world.faust.deliver(7)
        await until(lambda: world.exits == [EXIT_DEFECT])
        await asyncio.sleep(0.05)
        assert not world.faust.commits

    assert run(scenario).work.offsets == []


def test_passing_over_messages_later_is_never_silent() -> None:
    async def scenario(world: World) -> None:
        world.faust.begins, world.faust.kept = {0: 5}, {0: 0}
        await world.faust.assign(0)
        world.faust.deliver(5)
        await until(lambda: world.work.offsets == [5])
        world.faust.deliver(9, begin=8)
        await until(lambda: world.exits == [EXIT_DEFECT])

    assert run(scenario).work.offsets == [5]


def test_offsets_that_hold_no_message_are_no_loss() -> None:
    """Compaction and the markers of transactions leave gaps; positions have none."""

    async def scenario(world: World) -> None:
        world.faust.begins, world.faust.kept = {0: 5}, {0: 0}
        await world.faust.assign(0)
        world.faust.deliver(7, begin=5)
        world.faust.deliver(20, begin=8)
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 21})
        assert not world.exits

    assert run(scenario).work.offsets == [7, 20]


def test_what_kafka_has_removed_is_said_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        world.faust.begins, world.faust.kept = {0: 5}, {0: TransientError("Kafka", "away")}
        await world.faust.assign(0)
        world.faust.deliver(9)  # Kafka is asked again
        await until(lambda: world.work.offsets == [9])
        assert not world.exits

    run(scenario)
    assert "removed offsets 5 to 8" in caplog.text


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    async def scenario(world: World) -> None:
        world.faust.begins = {0: 100}
        await world.faust.assign(0)
        world.faust.deliver(0, 1)
        world.faust.deliver(2)
        await until(lambda: world.work.offsets == [0, 1, 2])

    run(scenario)


def test_what_is_read_again_in_a_generation_is_taken_once() -> None:
    async def scenario(world: World) -> None:
        world.faust.begins = {0: 3}
        await world.faust.assign(0)
        world.faust.deliver(3, 4, 5)
        world.faust.deliver(3, 4, 5, 6, begin=3)  # the consumer went back to the committed offset
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 7})

    assert run(scenario).work.offsets == [3, 4, 5, 6]


def test_large_messages_wait_in_kafkas_client_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_QUEUED_BYTES", 6)

    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(*range(20))
        await asyncio.to_thread(world.work.entered.wait, 10)
        await asyncio.sleep(0.05)
        assert world.agent._batcher._queue.qsize() == 3, "of two bytes each"
        world.work.gate.set()
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 20})

    assert run(scenario, prepare=None).work.offsets == list(range(20))


def test_a_batch_waits_to_fill_only_if_told_to() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        for offset in range(3):
            world.faust.deliver(offset)
            await asyncio.sleep(0.01)
        await until(lambda: len(world.work.offsets) == 3)

    assert run(scenario, wait=5.0, size=3).work.batches == [[0, 1, 2]]
    assert len(run(scenario, wait=0.0, size=3).work.batches) >= 2


def _lengths(calls: list[tuple[Sequence[Message], Sequence[Message]]]) -> list[tuple[int, int]]:
    return [(len(messages), len(following)) for messages, following in calls]


@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_there_is_told_to_the_batch_before_it(ahead: bool) -> None:
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

    work = run(scenario, **({} if ahead else {"prepare": None})).work
    if ahead:
        assert _lengths(work.prepared) == [(1, 0), (4, 4), (4, 0), (1, 0)], "a full batch is told of early"
        assert _lengths(work.calls) == [(1, 0), (4, 4), (4, 1), (1, 0)], "others as late as possible"
        promised = [following for _, following in work.calls]
        kept = [(messages, prepared) for (messages, _), (prepared, _) in zip(work.calls, work.prepared, strict=True)]
        assert all(a is b is c for a, (b, c) in zip(promised[1:], kept[2:], strict=False))
        assert work.prepared[1][1] is work.calls[1][1]
    else:
        assert _lengths(work.calls) == [(1, 0), (4, 0), (4, 0), (1, 0)]


def test_what_comes_while_a_batch_is_prepared_is_told_to_it() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.answered.clear()
        world.faust.deliver(0)
        await until(lambda: world.work.prepared)
        world.faust.deliver(1, 2)
        await asyncio.sleep(0.05)
        world.work.answered.set()
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 3})

    work = run(scenario).work
    assert _lengths(work.prepared) == [(1, 0), (2, 0)]
    assert _lengths(work.calls) == [(1, 2), (2, 0)]


def test_the_consumer_waits_for_the_batch_in_hand_but_not_for_long() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        await until(lambda: world.agent.state().restored)
        await asyncio.wait_for(world.agent.between_batches(60), 1)  # nothing is in hand
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


def test_runs_of_several_partitions_are_read_in_the_order_of_each() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0, 1)
        world.faust.deliver_runs((0, [4, 5]), (1, [7, 8]))
        world.faust.deliver_runs((1, [8, 9]), (0, [5, 6]))  # the newest ones may come twice
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 7, 1: 10})
        assert world.work.offsets == [4, 5, 7, 8, 9, 6]

    run(scenario)


def test_partitions_are_never_looked_after_between_a_batch_and_the_one_it_was_told_of() -> None:
    order: list[str] = []

    class Work(Recorder):
        remind: Callable[[], object]

        def __call__(self, messages: Sequence[Message], following: Sequence[Message]) -> None:
            super().__call__(messages, following)
            order.append("told" if following else "untold")
            if len(self.calls) % 3 == 0:
                self.remind()

    async def scenario(world: World) -> None:
        loop = asyncio.get_running_loop()
        work.remind = lambda: loop.call_soon_threadsafe(world.agent._batcher.remind)
        await world.faust.assign(0)
        world.faust.deliver(*range(400))
        await until(lambda: len(work.offsets) == 400)

    work = Work()
    run(scenario, process=work, tend=lambda _: order.append("tended"), tend_interval=60.0)
    assert order.count("tended") > 5
    assert order.count("told") > 20
    assert ("told", "tended") not in list(pairwise(order))


def test_what_was_looked_ahead_at_is_forgotten_when_partitions_move() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        for offset in range(8):
            world.faust.deliver(offset)
        await asyncio.to_thread(world.work.entered.wait, 10)
        await world.faust.revoke()  # gives up waiting after its patience
        world.faust.consumer_generation_id = 2
        await world.faust.assign(0)
        world.work.gate.set()
        await asyncio.sleep(0.05)
        assert world.faust.commits == []
        for offset in range(8):
            world.faust.deliver(offset)
        await until(lambda: world.faust.commits and world.faust.commits[-1] == {0: 8})

    work = run(scenario, revoke_patience=0.05).work
    assert work.offsets[-8:] == list(range(8))
    assert work.offsets[:-8] == list(range(len(work.offsets) - 8)), "only the batch in hand came to its end"


def test_waits_grow_with_jitter_up_to_the_longest() -> None:
    import random

    waits = RetryPolicy(first=1.0, longest=8.0, budget=60.0).waits(random.Random(0))
    drawn = [next(waits) for _ in range(8)]
    for wait, most in zip(drawn, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    assert len(set(drawn)) == 8


def test_partitions_are_looked_after_between_batches_and_while_idle() -> None:
    tended: list[list[int]] = []

    async def scenario(world: World) -> None:
        await asyncio.sleep(0.05)
        assert tended == [], "nothing is owned yet"
        await world.faust.assign(0, 3)
        await until(lambda: len(tended) > 1)
        for offset in range(40):
            world.faust.deliver(offset)
        await until(lambda: len(world.work.offsets) == 40)
        await world.faust.revoke()
        seen = len(tended)
        await asyncio.sleep(0.05)
        assert len(tended) == seen

    world = run(scenario, tend=lambda owned: tended.append(list(owned)), tend_interval=0.005)
    assert world.work.offsets == list(range(40))
    assert tended[0] == [0, 3]


def test_partitions_are_looked_after_under_a_backlog() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0)
        world.work.gate.clear()
        world.faust.deliver(*range(100))
        await asyncio.to_thread(world.work.entered.wait, 10)
        await until(world.agent._batcher._queue.full)
        tended.clear()
        world.agent._batcher.remind()
        world.work.gate.set()
        await until(lambda: len(world.work.offsets) == 100)
        assert len(tended) == 1

    tended: list[object] = []
    run(scenario, tend=tended.append, prepare=None)


def test_a_batch_is_processed_under_a_lease_that_a_commit_has_proved() -> None:
    async def scenario(world: World) -> None:
        await world.faust.assign(0, 1)
        world.faust.deliver_runs((0, [5, 6]), (1, [2]))
        await until(lambda: world.work.offsets == [5, 6, 2])
        assert world.faust.commits[0] == {0: 5, 1: 2}, "where the batch begins, before it is processed"
        await until(lambda: world.faust.commits[-1] == {0: 7, 1: 3})
        world.faust.deliver(7)
        await until(lambda: world.faust.commits[-1] == {0: 8})
        assert len(world.faust.commits) == 3, "the last commit is proof enough"

    run(scenario, lease=60.0, commit_interval=0.1)


def test_nothing_is_processed_without_proof() -> None:
    async def scenario(world: World) -> None:
        world.faust.refused = [False, False]
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: world.work.batches)
        assert world.faust.refused == []

    run(scenario, lease=60.0, commit_interval=60.0)


def test_a_zombie_gives_its_batch_up() -> None:
    async def scenario(world: World) -> None:
        world.faust.refused = [False] * 1000
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: len(world.faust.refused) < 998)
        await world.faust.revoke()
        world.faust.refused, world.faust.consumer_generation_id = [], 2
        await world.faust.assign(0)
        world.faust.deliver(7, begin=7)
        await until(lambda: world.work.offsets == [7])

    run(scenario, lease=60.0, commit_interval=60.0)


def test_a_batch_whose_lease_ran_out_in_between_is_tried_again() -> None:
    worlds: list[World] = []
    tries: list[str] = []

    def process(messages: Sequence[Message], _following: Sequence[Message]) -> None:
        if not tries:
            time.sleep(0.25)
        tries.append("begun")
        worlds[0].agent.require_lease()
        tries.append("done")

    async def scenario(world: World) -> None:
        worlds.append(world)
        await world.faust.assign(0)
        world.faust.deliver(0)
        await until(lambda: "done" in tries)

    world = run(scenario, process=process, lease=0.2, commit_interval=60.0)
    assert tries == ["begun", "begun", "done"]
    assert world.faust.commits == [{0: 0}, {0: 0}, {0: 1}]


def test_there_is_no_lease_once_the_partitions_are_gone() -> None:
    worlds: list[World] = []
    faults: list[TransientError] = []

    def process(messages: Sequence[Message], _following: Sequence[Message]) -> None:
        worlds[0].work(messages, ())
        try:
            worlds[0].agent.require_lease()
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

    run(scenario, process=process, lease=60.0, commit_interval=60.0)
