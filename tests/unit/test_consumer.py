"""What the mended consumer makes of a fetch; that nothing is lost on the way is tested on a real broker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP

from streams import app

TOPIC = "clicks"


class _Batches:
    """An agent with a batch in hand."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def between_batches(self, patience: float) -> None:
        self.waited.append(patience)


def _records(partition: int, *offsets: int) -> list[Any]:
    return [SimpleNamespace(topic=TOPIC, partition=partition, offset=offset) for offset in offsets]


def _fetch(monkeypatch: pytest.MonkeyPatch, fetched: Any, positions: dict[TP, int]) -> tuple[dict[TP, Any], Any]:
    async def kafka(_consumer: Any, _timeout: float) -> tuple[Any, Any]:
        assert batches.waited == [app._ASIDE], "messages lie in the consumer while a batch is in hand"
        return fetched, {"active"}

    monkeypatch.setattr(Consumer, "_wait_next_records", kafka)
    batches = _Batches()
    consumer: Any = object.__new__(app._Consumer)
    consumer.app = SimpleNamespace(batches=batches)
    consumer._read_offset = defaultdict(lambda: None, positions)
    found: tuple[dict[TP, Any], Any] = asyncio.run(consumer._wait_next_records(1.0))
    return found


def test_a_fetch_becomes_one_run_in_the_order_of_each_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = _records(0, 3, 4, 5), _records(2, 7, 8)
    runs, active = _fetch(monkeypatch, {TP(TOPIC, 0): one, TP(TOPIC, 2): two}, {TP(TOPIC, 0): 4})
    assert active == {"active"}
    # It goes by its last message, whose offset rises from fetch to fetch; what lies before the position is left out.
    assert runs == {TP(TOPIC, 2): [[*one[1:], *two]]}


@pytest.mark.parametrize("fetched", [None, {}, {TP(TOPIC, 0): _records(0, 3)}])
def test_nothing_new_is_no_run(monkeypatch: pytest.MonkeyPatch, fetched: Any) -> None:
    assert _fetch(monkeypatch, fetched, {TP(TOPIC, 0): 4}) == ({}, {"active"})
