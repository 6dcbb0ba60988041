"""The worker with trip-wires, for the chaos suite alone; its options are those of `python -m streams worker`.

Production code has no hooks. The points lie in subclasses of the parts of a worker. A point is
armed by a file of its name in the folder MINDSTREAM_TRIPS that holds the signal to send; the first process that passes
the point takes the file away and sends the signal to itself: SIGKILL dies there, SIGSTOP becomes a zombie.

MINDSTREAM_SABOTAGE breaks one rule of the guarantee, to show that the suite notices.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streams.agents.agent
import streams.processing.clicks
import streams.worker.build
from streams.__main__ import main
from streams.agents.agent import BatchAgent
from streams.agents.batching import Batch
from streams.agents.commits import Commits
from streams.history import History, apply_clicks
from streams.kafka.producer import KafkaRecordProducer
from streams.ports import Output
from streams.state.store import PartitionStores
from tests.chaos.trips import POINTS

_TRIPS = Path(os.environ["MINDSTREAM_TRIPS"])


def armed(point: str) -> bool:
    assert point in POINTS
    return (_TRIPS / point).exists()


def trip(point: str) -> None:
    """Send this process the signal that the point is armed with, once for all processes."""
    assert point in POINTS
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
    time.sleep(0.1)  # a stopped process goes on here, once it is continued


class _Outbox(KafkaRecordProducer):
    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        trip("searched")
        parts: dict[str, Callable[[Output], bool]] = {
            "half sent": lambda _: random.random() < 0.5,
            "answers sent": lambda o: o.partition is None,
            "histories sent": lambda o: o.partition is not None,
        }
        for point, chosen in parts.items():
            if armed(point):
                super().send([output for output in outputs if chosen(output)])
                trip(point)
        offsets = super().send(outputs, produced)
        trip("sent")
        return offsets


class _Stores(PartitionStores):
    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        super().write(partition, records, offsets)
        trip("stored")

    def restore(self, *args: Any, **options: Any) -> Any:
        restored = super().restore(*args, **options)
        trip("restoring")
        return restored


class _Commits(Commits):
    async def commit(self) -> None:
        if self._done:
            trip("committing")
        await super().commit()
        if self._done:
            trip("committed")


class _CommitsFirst(BatchAgent):
    async def _run(self, batch: Batch) -> Batch | None:
        self._commits.done(batch.messages)
        await self._commits.commit()
        return await super()._run(batch)


class _NeverBehind(_Stores):
    def restore(self, *args: Any, **options: Any) -> Any:
        super().restore(*args, **options)
        return set()


def _apply_without_fence(
    history: History | None, partition: int, clicks: Iterable[tuple[int, int]], length: int
) -> tuple[History, int]:
    unfenced = None if history is None else dataclasses.replace(history, offset=-1)
    return apply_clicks(unfenced, partition, clicks, length)


if __name__ == "__main__":
    sabotage = os.environ.get("MINDSTREAM_SABOTAGE", "")
    parts: dict[tuple[Any, str], Any] = {
        (streams.worker.build, "KafkaRecordProducer"): _Outbox,
        (streams.worker.build, "PartitionStores"): _NeverBehind if sabotage == "no repair" else _Stores,
        (streams.worker.build, "BatchAgent"): _CommitsFirst if sabotage == "commit first" else BatchAgent,
        (streams.agents.agent, "Commits"): _Commits,
    }
    for (module, name), part in parts.items():
        assert hasattr(module, name)
        setattr(module, name, part)
    if sabotage == "no fence":
        setattr(streams.processing.clicks, "apply_clicks", _apply_without_fence)  # noqa: B010 - imported there, not exported
    main(["worker", *sys.argv[1:]], prog_name="chaos worker")
