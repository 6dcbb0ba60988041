"""An agent with a fake Faust app and a processor that records its calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from faust.types import TP
from prometheus_client import CollectorRegistry

from configs.errors import TransientError
from streams.agents.agent import AgentOptions, BatchAgent
from streams.agents.assignment import Assignment
from streams.agents.batching import FetchedRun
from streams.agents.retrying import RetryPolicy
from streams.errors import RefusedData
from streams.metrics import BatchMetrics
from streams.ports import Message, Position

TOPIC = "clicks"


class FakeFaust:
    """The part of a Faust app that an agent uses: it delivers events, moves partitions and records commits."""

    def __init__(self) -> None:
        self.started = True
        self.consumer_generation_id = 1
        self.commits: list[dict[int, int]] = []
        self.metadata: dict[int, str] = {}  # of the last commits, by partition
        self.commit_results: list[bool | Exception] = []  # of the next commits, instead of success
        self.consumer = SimpleNamespace(
            commit_positions=self._commit, start_offset=self._start_offset, oldest_offset=self._oldest_offset
        )
        self.start_offsets: dict[int, int] = {}  # partition → committed offset, where reading began
        self.oldest_offsets: dict[int, int | TransientError] = {}  # only if not that of the first run
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

    async def _commit(self, positions: Mapping[TP, Position]) -> bool:
        if self.commit_results:
            end = self.commit_results.pop(0)
            if isinstance(end, Exception):
                raise end
            return end
        self.commits.append({tp.partition: position.offset for tp, position in positions.items()})
        self.metadata |= {tp.partition: position.metadata for tp, position in positions.items()}
        return True

    def _start_offset(self, tp: TP) -> int | None:
        return self.start_offsets.get(tp.partition)

    async def _oldest_offset(self, tp: TP) -> int:
        oldest = self.oldest_offsets.get(tp.partition, 10**9)
        if isinstance(oldest, TransientError):
            del self.oldest_offsets[tp.partition]
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
        """Deliver a run of messages; it begins where the last one ended, or is read again, unless `begin` is given."""
        self.deliver_runs((partition, offsets), generation=generation, begin=begin)

    def deliver_runs(
        self, *runs: tuple[int, Sequence[int]], generation: int | None = None, begin: int | None = None
    ) -> None:
        """Deliver runs of several partitions as one event."""
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


@dataclass(eq=False)
class Started:
    """A batch that the recorder has started."""

    recorder: Recorder
    messages: Sequence[Message]

    def wait(self) -> None:
        self.recorder.log.append(f"wait {len(self.messages)}")
        self.recorder.waiting.set()
        assert self.recorder.answered.wait(10)
        self.recorder.check("wait", self.messages)


class Recorder:
    """A processor that records its calls, fails on demand, and can be held in `wait` and in `finish`."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.batches: list[list[int]] = []  # offsets of the finished batches
        self.faults: list[Exception] = []  # raised by the next calls of `finish`
        self.poison: frozenset[int] = frozenset()  # offsets of messages whose data is refused, in `refuses`
        self.refuses = "start"
        self.refused: list[int] = []  # offsets of the messages that became dead letters
        self.answered, self.gate = threading.Event(), threading.Event()
        self.waiting, self.entered = threading.Event(), threading.Event()
        self.answered.set()
        self.gate.set()

    def start(self, messages: Sequence[Message], after: Started | None) -> Started:
        self.log.append(f"start {len(messages)}" + ("" if after is None else f" after {len(after.messages)}"))
        self.check("start", messages)
        return Started(self, messages)

    def finish(self, pending: Started) -> None:
        self.log.append(f"finish {len(pending.messages)}")
        self.entered.set()
        assert self.gate.wait(10)
        if self.faults:
            raise self.faults.pop(0)
        self.check("wait", pending.messages)  # it waits itself, unless that was done before
        self.check("finish", pending.messages)
        self.batches.append([m.offset for m in pending.messages])

    def check(self, call: str, messages: Sequence[Message]) -> None:
        if call == self.refuses and self.poison.intersection(m.offset for m in messages):
            raise RefusedData("Milvus", "cannot parse expression")

    def refuse(self, message: Message, error: RefusedData) -> None:
        assert error.detail == "cannot parse expression"
        self.refused.append(message.offset)

    @property
    def offsets(self) -> list[int]:
        return [offset for batch in self.batches for offset in batch]


class Hooks:
    """Partition hooks that call the given functions, and raise `defect`, if it is set, on the next release."""

    def __init__(
        self,
        acquire: Callable[[Collection[int]], object],
        maintain: Callable[[Collection[int]], object],
        release: Callable[[], object],
    ) -> None:
        self._acquire, self._maintain, self._release = acquire, maintain, release
        self.defect: Exception | None = None
        self.due: Callable[[], bool] = lambda: False
        self.done = 0

    def acquire(self, partitions: Collection[int]) -> None:
        self._acquire(partitions)

    def maintain(self, partitions: Collection[int]) -> None:
        self._maintain(partitions)

    def maintenance_due(self) -> bool:
        return self.due()

    def commit_metadata(self, partition: int) -> str:
        self.done += 1
        return f"partition {partition}, batch {self.done}"

    def release(self) -> None:
        self._release()
        if self.defect is not None:
            defect, self.defect = self.defect, None
            raise defect


class World:
    """An agent with short waits; its options and the calls of its hooks can be given."""

    def __init__(
        self,
        processor: Recorder | None = None,
        *,
        acquire: Callable[[Collection[int]], object] = lambda _: None,
        maintain: Callable[[Collection[int]], object] = lambda _: None,
        release: Callable[[], object] = lambda: None,
        lease_s: float | None = None,
        **options: Any,
    ) -> None:
        self.faust = FakeFaust()
        self.work = processor or Recorder()
        self.hooks = Hooks(acquire, maintain, release)
        self.assignment = Assignment(lease_s)
        self.exits: list[int] = []
        defaults: dict[str, Any] = {
            "batch_size": 4,
            "batch_wait_s": 0.0,
            "look_ahead": True,
            "retry": RetryPolicy(first_s=0.001, longest_s=0.01, budget_s=60.0),
            "commit_interval_s": 0.01,
            "revoke_timeout_s": 0.2,
        }
        app: Any = self.faust
        self.metrics = BatchMetrics(CollectorRegistry(), "clicks")
        self.agent = BatchAgent(
            app,
            TOPIC,
            self.work,
            hooks=self.hooks,
            assignment=self.assignment,
            options=AgentOptions(**defaults | options),
            metrics=self.metrics,
            exit_process=self.exits.append,
        )
        self.tasks: list[asyncio.Task[None]] = []

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
    """Wait until a condition holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within 10 s"
        await asyncio.sleep(0.002)


def run(scenario: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> World:
    """Run a scenario in a world of its own."""

    async def main() -> World:
        async with World(**options) as world:
            await scenario(world)
            return world

    return asyncio.run(main())
