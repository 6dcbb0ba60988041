"""The local history store: RocksDB for real, in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streams.errors import FatalError, PartitionLost
from streams.history import History
from streams.store import PartitionStores


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PartitionStores]:
    made = PartitionStores(tmp_path / "history")
    made.own(range(8))
    yield made
    made.close()


def test_partitions_are_apart_and_reading_keeps_the_order(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1", b"b": b"2"}, [0, 1])
    stores.write(1, {b"a": b"other"}, [0])
    assert stores.read(0, [b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert stores.read(1, [b"a"]) == [b"other"]
    assert stores.read(2, []) == []
    assert [stores.offset(p) for p in (0, 1, 2)] == [1, 0, -1]


def test_records_and_their_offset_survive_a_restart(stores: PartitionStores, tmp_path: Path) -> None:
    stores.restore(3, [(b"a", b"1")], 5)
    stores.write(3, {b"b": b"2"}, [6])
    stores.close()
    again = PartitionStores(tmp_path / "history")
    again.own([3])
    assert again.read(3, [b"a", b"b"]) == [b"1", b"2"]
    assert again.offset(3) == 6
    again.close()


def test_a_partition_that_was_taken_away_cannot_be_touched_until_it_comes_back(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1"}, [0])
    stores.own([1, 2])
    with pytest.raises(PartitionLost):
        stores.read(0, [b"a"])
    with pytest.raises(PartitionLost):
        stores.write(0, {b"a": b"2"}, [1])
    stores.own([0])
    assert stores.read(0, [b"a"]) == [b"1"]
    assert stores.offset(0) == 0
    stores.disown()
    with pytest.raises(PartitionLost, match=r"\[0\]"):
        stores.check([0])


def test_a_forgotten_partition_is_empty_and_the_others_are_not(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1"}, [0])
    stores.write(1, {b"a": b"1"}, [0])
    stores.forget(0)
    assert stores.read(0, [b"a"]) == [None]
    assert stores.offset(0) == -1
    assert stores.read(1, [b"a"]) == [b"1"]


def test_the_offset_moves_only_over_records_that_the_store_has(stores: PartitionStores) -> None:
    """If another worker's records lie between, they have not been read yet."""
    stores.write(0, {b"a": b"1", b"b": b"2"}, [1, 0])
    assert stores.offset(0) == 1
    stores.write(0, {b"a": b"3"}, [5])
    assert stores.read(0, [b"a"]) == [b"3"]
    assert stores.offset(0) == 1, "2 to 4 are somebody else's: the next restore begins at 2"


def test_a_store_belongs_to_one_changelog_topic(stores: PartitionStores) -> None:
    stores.bind("id-1")
    stores.bind("id-1")
    with pytest.raises(FatalError, match=r"worker\.data_dir"):
        stores.bind("id-2")


def test_restoring_keeps_the_newer_of_two_records(stores: PartitionStores) -> None:
    def record(offset: int) -> bytes:
        return History(0, offset, np.array([offset])).to_bytes()

    late = record(35)  # sent by a worker that had been paused
    stores.restore(0, [(b"a", record(30)), (b"a", record(40)), (b"b", record(1)), (b"b", None), (b"a", late)], 6)
    assert stores.read(0, [b"a", b"b"]) == [record(40), None]
    stores.restore(0, [(b"a", record(38))], 7)
    assert stores.read(0, [b"a"]) == [record(40)], "the record in the store counts, too"
    assert stores.offset(0) == 7
    stores.restore(0, [(b"a", None)], 8)
    assert stores.read(0, [b"a"]) == [None]
