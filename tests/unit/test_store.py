"""The local history store: RocksDB for real, in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streams.errors import FatalError, PartitionLost
from streams.history import History
from streams.store import PartitionStores, _RestoredStore


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PartitionStores]:
    made = PartitionStores(tmp_path / "history")
    made.own(range(8))
    yield made
    made.close()


def test_partitions_are_apart_and_reading_keeps_the_order(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1", b"b": b"2"}, 5)
    stores.write(1, {b"a": b"other"}, 9)
    assert stores.read(0, [b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert stores.read(1, [b"a"]) == [b"other"]
    assert stores.read(2, []) == []
    assert [stores.offset(p) for p in (0, 1, 2)] == [5, 9, None]


def test_records_and_their_offset_survive_a_restart(stores: PartitionStores, tmp_path: Path) -> None:
    stores.write(3, {b"a": b"1"}, 5)
    stores.write(3, {b"a": None, b"b": b"2"}, 6)
    stores.close()
    again = PartitionStores(tmp_path / "history")
    again.own([3])
    assert again.read(3, [b"a", b"b"]) == [None, b"2"]
    assert again.offset(3) == 6
    again.close()


def test_a_partition_that_was_taken_away_cannot_be_touched_until_it_comes_back(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1"}, 1)
    stores.own([1, 2])
    with pytest.raises(PartitionLost):
        stores.read(0, [b"a"])
    with pytest.raises(PartitionLost):
        stores.write(0, {b"a": b"2"}, 7)
    stores.own([0])
    assert stores.read(0, [b"a"]) == [b"1"]
    assert stores.offset(0) == 1


def test_wiping_forgets_everything(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1"}, 1)
    stores.wipe()
    stores.own([0])
    assert stores.read(0, [b"a"]) == [None]
    assert stores.offset(0) is None


def test_a_store_belongs_to_one_changelog_topic(stores: PartitionStores) -> None:
    stores.bind("id-1")
    stores.bind("id-1")
    with pytest.raises(FatalError, match=r"worker\.data_dir"):
        stores.bind("id-2")


def test_recovery_applies_the_changelog_in_order(stores: PartitionStores) -> None:
    def event(partition: int, offset: int, key: bytes, value: bytes | None) -> Any:
        return SimpleNamespace(message=SimpleNamespace(partition=partition, offset=offset, key=key, value=value))

    def record(offset: int) -> bytes:
        return History(0, offset, np.array([offset])).to_bytes()

    restored = _RestoredStore.__new__(_RestoredStore)
    restored._stores = stores
    batch = [
        event(0, 3, b"a", record(30)),
        event(1, 8, b"c", record(1)),
        event(0, 4, b"a", record(40)),
        event(0, 5, b"b", None),
        event(0, 6, b"a", record(35)),  # sent late, by a worker that had been paused
    ]
    restored.apply_changelog_batch(batch, None, None)
    assert stores.read(0, [b"a", b"b"]) == [record(40), None]
    restored.apply_changelog_batch([event(0, 7, b"a", record(38))], None, None)
    assert stores.read(0, [b"a"]) == [record(40)], "the record in the store counts, too"
    assert restored.persisted_offset(SimpleNamespace(partition=0)) == 7  # type: ignore[arg-type]
    assert restored.persisted_offset(SimpleNamespace(partition=1)) == 8  # type: ignore[arg-type]
    restored.apply_changelog_batch([event(0, 8, b"a", None)], None, None)
    assert stores.read(0, [b"a"]) == [None]
