"""The worker with trip-wires, for the chaos suite only; its options are those of `python -m streams worker`.

Production code has no hooks. The points are in subclasses of the parts of a worker. A point is armed by a file with
the point's name in the folder MINDSTREAM_TRIPS, which holds the name of the signal to send. The first process that
passes the point removes the file and sends the signal to itself: SIGKILL ends it there, SIGSTOP makes it a zombie.

MINDSTREAM_SABOTAGE breaks one rule of the guarantee, to show that the suite detects it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from streams.__main__ import main
from streams.agents.agent import BatchAgent
from streams.agents.assignment import Assignment
from streams.agents.pipeline import Work
from streams.history import History
from streams.kafka.producer import KafkaRecordProducer
from streams.milvus.index import MilvusIndex
from streams.ports import HistoryStore, Output
from streams.processing.clicks import ClickProcessor
from streams.recall.engine import RecallEngine
from streams.state.store import PartitionStores
from streams.worker.parts import WorkerParts
from tests.chaos.trips import CLICK_POINTS, ITEM_POINTS

_TRIPS = Path(os.environ["MINDSTREAM_TRIPS"])


def armed(point: str) -> bool:
    assert point in CLICK_POINTS
    return (_TRIPS / point).exists()


def trip(point: str) -> None:
    """Send this process the signal that the point is armed with, once for all processes."""
    assert point in CLICK_POINTS | ITEM_POINTS
    mine = _TRIPS / f"{point}.{os.getpid()}"
    try:
        (_TRIPS / point).rename(mine)
    except FileNotFoundError:
        return
    try:
        number = signal.Signals[mine.read_text()]
    except FileNotFoundError:  # disarmed at this very moment
        return
    os.kill(os.getpid(), number)
    time.sleep(0.1)  # a stopped process continues here


class _RecordProducer(KafkaRecordProducer):
    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        trip("searched")
        parts: dict[str, Callable[[Output], bool]] = {
            "half sent": lambda _: random.random() < 0.5,
            "answers sent": lambda o: o.partition is None,
            "histories sent": lambda o: o.partition is not None,
        }
        for point, chosen in parts.items():
            if armed(point):
                return self._send_in_two(outputs, chosen, point)
        offsets = super().send(outputs, produced)
        trip("sent")
        return offsets

    def _send_in_two(self, outputs: Sequence[Output], chosen: Callable[[Output], bool], point: str) -> Sequence[int]:
        """Send the chosen messages, and the others after the point: a request for each partition is in flight."""
        first = [number for number, output in enumerate(outputs) if chosen(output)]
        rest = [number for number in range(len(outputs)) if number not in set(first)]
        offsets = [-1] * len(outputs)
        for numbers in (first, rest):
            sent_at = super().send([outputs[number] for number in numbers])
            for number, offset in zip(numbers, sent_at, strict=True):
                offsets[number] = offset
            trip(point)
        return offsets


class _Stores(PartitionStores):
    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        super().write(partition, records, offsets)
        trip("stored")

    def restore(self, *args: Any, **options: Any) -> Any:
        restored = super().restore(*args, **options)
        trip("restoring")
        return restored


class _Index(MilvusIndex):
    def upsert(self, *args: Any, **options: Any) -> None:
        trip("upserting")
        super().upsert(*args, **options)


def _trip_before_leases() -> None:
    require_lease = Assignment.require_lease

    def tripped(self: Assignment) -> None:
        trip("leasing")
        require_lease(self)

    Assignment.require_lease = tripped  # type: ignore[method-assign]  # no part of a worker can be replaced here


class _Agent(BatchAgent[Any]):
    async def _commit(self) -> None:
        if self._commits._done:
            trip("committing")
        await super()._commit()
        if self._commits._done:
            trip("committed")


class _CommitsFirst(_Agent):
    """Commits the offsets of a batch before it is processed."""

    async def _run_batch(self, work: Work[Any]) -> Work[Any] | None:
        self._commits.done(work.batch.messages)
        await self._commit()
        return await super()._run_batch(work)


class _NeverRepairs(_Stores):
    """Reports no user whose last record is older than the stored one: nothing is repaired."""

    def restore(self, *args: Any, **options: Any) -> Any:
        return super().restore(*args, **options)._replace(overwritten=set())


class _UnfencedStore:
    """The store as the click processor sees it: no fence stops a click. Restoring still sees the fences."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self.check, self.write = store.check, store.write

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        records = self._store.read(partition, keys)
        return [None if r is None else replace(History.from_bytes(r), offset=-1).to_bytes() for r in records]


class _Unfenced(ClickProcessor):
    def __init__(self, engine: RecallEngine, store: HistoryStore, *args: Any, **options: Any) -> None:
        super().__init__(engine, _UnfencedStore(store), *args, **options)


if __name__ == "__main__":
    sabotage = os.environ.get("MINDSTREAM_SABOTAGE", "")
    _trip_before_leases()
    parts = WorkerParts(
        index=_Index,
        record_producer=_RecordProducer,
        stores=_NeverRepairs if sabotage == "no repair" else _Stores,
        click_processor=_Unfenced if sabotage == "no fence" else ClickProcessor,
        agent=_CommitsFirst if sabotage == "commit first" else _Agent,
    )
    main(["worker", *sys.argv[1:]], prog_name="chaos worker", obj=parts)
