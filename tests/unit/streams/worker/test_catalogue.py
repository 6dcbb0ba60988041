"""The collection compared with the model's items, and the start that waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from configs.errors import FatalError, TransientError
from streams.errors import RestartRequired
from streams.recall.memory import MemoryIndex
from streams.recall.ports import IndexInfo
from streams.recall.verified import RequiredItems
from streams.worker.catalogue import Catalogue


class Index(MemoryIndex):
    """An index that holds `rows` items, or fails; `counted` is called at each count."""

    def __init__(self, rows: int) -> None:
        super().__init__("m1", 4)
        self.hold(rows)
        self.fault: Exception | None = None
        self.counted: Callable[[int], None] = lambda _: None
        self.counts = 0

    def hold(self, rows: int) -> None:
        self._vectors = {}
        self.upsert(np.arange(1, rows + 1), np.ones((rows, 4), dtype=np.float32))

    def describe(self) -> IndexInfo:
        self.counts += 1
        self.counted(self.counts)
        if self.fault is not None:
            raise self.fault
        return super().describe()


class World:
    def __init__(self, rows: int, items: int = 10, share: float = 0.9) -> None:
        self.time = 0.0
        self.index = Index(rows)
        self.registry = CollectorRegistry()
        self.catalogue = Catalogue(
            self.index, RequiredItems(items, share, Path("dir")), self.registry, lambda: self.time
        )
        self.catalogue.count()

    def wait(self, monkeypatch: pytest.MonkeyPatch, budget_s: float = 300.0) -> None:
        async def pass_time(seconds: float) -> None:
            self.time += seconds
            assert self.time < 1e4, "the start waits without end"

        monkeypatch.setattr(asyncio, "sleep", pass_time)
        asyncio.run(self.catalogue.await_filled(budget_s))


@pytest.mark.parametrize(
    ("rows", "items", "share", "filled"),
    [
        (9, 10, 0.9, True),
        (8, 10, 0.9, False),
        (0, 10, 0.0, True),
        (9, 10, 1.0, False),
        (3, 3, 0.9, True),
        (2, 3, 0.9, False),
    ],
)
def test_the_share_decides(rows: int, items: int, share: float, filled: bool) -> None:
    assert (World(rows, items, share).catalogue.missing is None) is filled


def test_the_text_names_the_numbers_and_the_remedy() -> None:
    assert World(12, 4000).catalogue.missing == (
        "the collection holds 12 of 4,000 items; publish them: python -m producers.items --artifact dir; "
        "if they were published, see python -m streams deadletters list; if so many are enough, "
        "lower recall.catalogue_share"
    )


def test_both_numbers_are_exported() -> None:
    world = World(3)
    assert world.registry.get_sample_value("mindstream_catalogue_rows") == 3
    assert world.registry.get_sample_value("mindstream_catalogue_model_items") == 10


def test_it_is_counted_seldom_unless_items_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(10)
    counted = [world.index.counts]
    for _ in range(24):
        world.time += 5.0
        world.catalogue.count_when_due()
    counted.append(world.index.counts)
    world.index.hold(0)
    world.catalogue.count()
    for _ in range(12):
        world.time += 5.0
        world.catalogue.count_when_due()
    counted.append(world.index.counts)
    assert np.diff(counted).tolist() == [2, 13]
    assert [r.getMessage() for r in caplog.records if "not ready" in r.getMessage()] == [
        f"not ready: {world.catalogue.missing}"
    ], "once"


def test_a_filled_collection_lets_the_start_go_on_without_another_count(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(10)
    world.wait(monkeypatch)
    assert (world.time, world.index.counts) == (0.0, 1)


def test_the_start_waits_without_a_limit_and_logs_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(0)
    world.index.counted = lambda count: world.index.hold(10) if count > 1000 else None
    world.wait(monkeypatch)
    assert world.time >= 999.0
    lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert 30 <= len(lines) <= 40
    assert lines[0].startswith("no clicks are taken: the collection holds 0 of 10 items; publish them")


def test_an_unavailable_milvus_gets_the_retry_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)
    world.index.fault = TransientError("Milvus", "unavailable")
    with pytest.raises(RestartRequired, match="Milvus: unavailable; retried for 60 s") as exiting:
        world.wait(monkeypatch, budget_s=60.0)
    assert exiting.value.exit_status == 75


def test_the_budget_begins_again_with_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)

    def flap(count: int) -> None:
        world.index.fault = TransientError("Milvus", "unavailable") if count % 50 else None
        if count > 400:
            world.index.hold(10)

    world.index.counted = flap
    world.wait(monkeypatch, budget_s=60.0)
    assert world.time > 400.0


def test_a_collection_that_is_gone_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)
    world.index.fault = FatalError("gone")
    with pytest.raises(FatalError):
        world.wait(monkeypatch)
