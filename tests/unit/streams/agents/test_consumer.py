"""Runs that the fixed consumer makes of a fetch. Tests on a real broker check that nothing is lost."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    ConsumerStoppedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import TopicPartition  # type: ignore[import-untyped]
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP

from streams.agents import consumer as fixed
from streams.agents.batching import FetchedRun
from streams.errors import RestartRequired
from streams.ports import Position

TOPIC = "clicks"


class _Batches:
    """An agent with a batch in progress."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def between_batches(self, timeout_s: float) -> None:
        self.waited.append(timeout_s)


def _records(partition: int, *offsets: int) -> list[Any]:
    return [SimpleNamespace(topic=TOPIC, partition=partition, offset=offset) for offset in offsets]


def _next_records(monkeypatch: pytest.MonkeyPatch, taken: Any) -> tuple[dict[TP, Any], Any]:
    async def kafka(_consumer: Any, _timeout: float) -> tuple[Any, Any]:
        assert batches.waited == [fixed._HOLD_BACK_S], "messages stay in the consumer while a batch is in progress"
        return taken, {"active"}

    monkeypatch.setattr(Consumer, "_wait_next_records", kafka)
    batches = _Batches()
    consumer: Any = object.__new__(fixed._Consumer)
    consumer.app = SimpleNamespace(batch_agent=batches)
    consumer._read_offset = defaultdict(lambda: None, {TP(TOPIC, 2): 99})
    found: tuple[dict[TP, Any], Any] = asyncio.run(consumer._wait_next_records(1.0))
    assert not consumer._read_offset, "Faust would drop messages before it"
    return found


def test_a_fetch_becomes_one_message_for_faust(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = FetchedRun(3, 6, _records(0, 3, 4, 5)), FetchedRun(7, 9, _records(2, 7, 8))
    runs, active = _next_records(monkeypatch, {TP(TOPIC, 0): one, TP(TOPIC, 2): two})
    assert active == {"active"}
    assert runs == {TP(TOPIC, 2): [[one, two]]}


@pytest.mark.parametrize("taken", [None, {}])
def test_a_fetch_without_messages_delivers_nothing(monkeypatch: pytest.MonkeyPatch, taken: Any) -> None:
    assert _next_records(monkeypatch, taken) == ({}, {"active"})


class _State:
    """The state of a partition, as aiokafka keeps it."""

    def __init__(self, position: int | None) -> None:
        self._position = position


class _Client:
    """The part of aiokafka's consumer that the thread uses; `arriving` are fetches: partition → (position, offsets)."""

    def __init__(self, positions: dict[int, int | None], *arriving: dict[int, tuple[int, list[int]]]) -> None:
        self.states = {TP(TOPIC, p): _State(position) for p, position in positions.items()}
        self.arriving = list(arriving)
        self.asked = 0
        self.refusal: Exception | None = None
        self._closed = False
        self._fetcher: Any = self
        self._subscription: Any = self
        self.subscription = SimpleNamespace(
            assignment=SimpleNamespace(tps=set(self.states), state_value=self.states.get)
        )
        self.reassignment_in_progress = False

    def fetch_context(self) -> Any:
        return nullcontext()

    async def fetched_records(self, _active: Any, *, timeout: float, max_records: int) -> dict[TP, Any]:
        assert timeout == 0, "it must not wait: the flow may be stopped meanwhile"
        self.asked += 1
        taken = {}
        for partition, (position, offsets) in (self.arriving.pop(0) if self.arriving else {}).items():
            self.states[TP(TOPIC, partition)]._position = position
            if offsets:
                taken[TP(TOPIC, partition)] = _records(partition, *offsets)
        return taken

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.refusal is not None:
            waiter.set_exception(self.refusal)
        elif self.arriving:
            waiter.set_result(None)
        return waiter


def _thread(monkeypatch: pytest.MonkeyPatch, *, flows: bool = True) -> Any:
    monkeypatch.setattr(AIOKafkaConsumerThread, "__init__", lambda self, consumer: setattr(self, "consumer", consumer))
    consumer: Any = SimpleNamespace(flow_active=flows)
    return fixed._Thread(consumer)


def _fetch(thread: Any, client: _Client, timeout: float = 0.01) -> dict[TP, FetchedRun]:
    taken: dict[TP, FetchedRun] = asyncio.run(thread._fetch_records(client, set(), timeout=timeout, max_records=500))
    return taken


def _spans(taken: dict[TP, FetchedRun]) -> dict[int, tuple[int, int, list[int]]]:
    return {tp.partition: (run.begin, run.end, [r.offset for r in run.records]) for tp, run in taken.items()}


def test_a_fetch_without_messages_holds_up_others_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def faust_creates(_thread: Any, _transport: Any) -> Any:
        return AIOKafkaConsumer(fetch_max_wait_ms=1500)

    async def wait_ms() -> Any:
        monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", faust_creates)
        client = _thread(monkeypatch)._create_worker_consumer(None)
        client._closed = True  # it was never started
        return client._fetch_max_wait_ms

    assert asyncio.run(wait_ms()) == 100


def test_a_run_knows_the_positions_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client({0: 3, 1: 0, 2: None}, {}, {0: (9, [3, 4, 8])})
    assert _spans(_fetch(_thread(monkeypatch), client)) == {0: (3, 9, [3, 4, 8])}
    assert client.asked == 2, "nothing was there at the first fetch"


def test_a_position_that_moves_without_messages_begins_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers of transactions move it; the run after them has skipped nothing."""
    thread, client = _thread(monkeypatch), _Client({0: 3}, {0: (4, [])}, {0: (5, [])}, {0: (8, [6, 7])}, {0: (9, [8])})
    assert _spans(_fetch(thread, client)) == {0: (3, 8, [6, 7])}
    assert _spans(_fetch(thread, client)) == {0: (8, 9, [8])}


def test_a_seek_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    thread, client = _thread(monkeypatch), _Client({0: 3}, {0: (4, [])})
    assert _fetch(thread, client) == {}
    client.states[TP(TOPIC, 0)]._position = 2
    client.arriving.append({0: (3, [2])})
    assert _spans(_fetch(thread, client)) == {0: (2, 3, [2])}


@pytest.mark.parametrize("moving", [True, False])
def test_nothing_is_taken_while_partitions_move(monkeypatch: pytest.MonkeyPatch, moving: bool) -> None:
    client = _Client({0: 3}, {0: (4, [3])})
    client.reassignment_in_progress = moving
    assert _fetch(_thread(monkeypatch, flows=moving), client, timeout=0.2) == {}
    assert client.asked == 0


def test_a_fetch_that_waits_takes_nothing_once_the_flow_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    thread, client = _thread(monkeypatch), _Client({0: 3})

    async def main() -> Any:
        fetch = asyncio.ensure_future(thread._fetch_records(client, set(), timeout=5, max_records=500))
        waits = asyncio.Event()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wait() -> asyncio.Future[None]:
            waits.set()
            return waiter

        monkeypatch.setattr(client, "_create_fetch_waiter", wait)
        await waits.wait()
        thread.consumer.flow_active = False
        client.arriving.append({0: (4, [3])})
        waiter.set_result(None)
        return await fetch

    assert asyncio.run(main()) == {}
    assert client.asked == 1


def test_errors_of_kafka_and_of_a_closed_client_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client({0: 3})
    client.refusal = TopicAuthorizationFailedError(TOPIC)
    with pytest.raises(TopicAuthorizationFailedError):
        _fetch(_thread(monkeypatch), client)
    client._closed = True
    with pytest.raises(ConsumerStoppedError):
        _fetch(_thread(monkeypatch), client)


@pytest.mark.parametrize("generation", [-1, 3])
def test_only_a_member_of_the_group_commits(generation: int) -> None:
    """While a group has no members, Kafka takes a commit without a generation from anyone: a zombie, too."""
    asked: list[Any] = []

    async def commit(offsets: Any) -> None:
        asked.append(offsets)

    client = SimpleNamespace(commit=commit, _coordinator=SimpleNamespace(generation=generation))
    consumer: Any = object.__new__(fixed._Consumer)
    consumer._thread = SimpleNamespace(assignment=lambda: {TP(TOPIC, 0)}, _ensure_consumer=lambda: client)
    taken = asyncio.run(consumer._try_commit({TP(TOPIC, 0): Position(7, "of it"), TP(TOPIC, 1): Position(9)}))
    assert taken is (generation > 0)
    assert [{tp.partition: tuple(p) for tp, p in due.items()} for due in asked] == [{0: (7, "of it")}] * (
        generation > 0
    )


@pytest.mark.parametrize("fault", [None, "Kafka", "rebalance"])
def test_the_agent_learns_where_partitions_with_a_commit_begin(
    monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    learned: list[tuple[int, int, int]] = []
    app = SimpleNamespace(
        consumer_generation_id=3, batch_agent=SimpleNamespace(begin_reading=lambda *begin: learned.append(begin))
    )

    async def seek(_consumer: Any) -> None:
        pass

    read = asyncio.Event()

    async def earliest_offsets(*asked: Any) -> dict[Any, int]:
        await read.wait()
        if fault == "Kafka":
            raise KafkaConnectionError
        if fault == "rebalance":
            app.consumer_generation_id = 4
        return dict.fromkeys(asked, 50)

    async def seek_to_beginning(*fresh: Any) -> None:
        assert [tp.partition for tp in fresh] == [1]

    monkeypatch.setattr(Consumer, "perform_seek", seek)
    consumer: Any = object.__new__(fixed._Consumer)
    consumer.app = app
    consumer.stop_flow = lambda: None
    consumer.assignment = lambda: {TP(TOPIC, 0), TP(TOPIC, 1)}
    consumer._committed_offset = {TP(TOPIC, 0): 7, TP(TOPIC, 1): 0, TP(TOPIC, 2): 9}
    consumer._thread = SimpleNamespace(earliest_offsets=earliest_offsets, seek_to_beginning=seek_to_beginning)
    consumer._new_topicpartition = TopicPartition
    asked: list[Any] = []
    consumer.add_future = asked.append

    async def scenario() -> None:
        await asyncio.wait_for(consumer.perform_seek(), 10)  # it waits for no answer
        read.set()
        await asyncio.gather(*asked)

    asyncio.run(scenario())
    assert learned == ([(0, 7, 50)] if fault is None else [])


class _Gate:
    """A gate that ends when the test says so."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        await self.end.wait()
        if self.error is not None:
            raise self.error


def _start(monkeypatch: pytest.MonkeyPatch, act: Callable[[_Gate, fixed.WorkerApp], Awaitable[None]]) -> list[Any]:
    """Start an app and return what happened: "started", or the error with which its process exits."""
    happened: list[Any] = []

    async def start(_app: faust.App) -> None:
        happened.append("started")

    async def stop() -> None:
        """The agent has nothing to finish."""

    async def scenario() -> None:
        gate, agent = _Gate(), cast("Any", SimpleNamespace(exit_on=happened.append, stop=stop))
        app = fixed.WorkerApp("group", agent=lambda _app: agent, gate=gate, broker="kafka://127.0.0.1:9")
        starting = asyncio.ensure_future(app.start())
        await asyncio.sleep(0.01)
        assert not starting.done() and not happened
        await act(gate, app)
        await asyncio.wait([starting], timeout=10)
        assert starting.done()
        starting.exception()  # retrieved

    monkeypatch.setattr(faust.App, "start", start)
    asyncio.run(scenario())
    return happened


def test_an_app_starts_when_its_gate_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(gate: _Gate, _app: fixed.WorkerApp) -> None:
        gate.end.set()

    assert _start(monkeypatch, act) == ["started"]


def test_an_app_that_is_stopped_at_its_gate_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(_gate: _Gate, app: fixed.WorkerApp) -> None:
        await app.stop()

    assert _start(monkeypatch, act) == []


def test_a_gate_that_fails_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RestartRequired("Milvus is unavailable")

    async def act(gate: _Gate, _app: fixed.WorkerApp) -> None:
        gate.error = error
        gate.end.set()

    assert _start(monkeypatch, act) == [error]
