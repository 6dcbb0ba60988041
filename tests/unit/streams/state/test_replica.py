"""Applying the changelog to the store, and the offsets at which reading it has to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.kafka.partition_reader import PartitionChunk
from streams.state.replica import Replica, first_unread_offsets
from streams.state.store import PartitionStores
from tests.unit.changelog import record


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PartitionStores]:
    made = PartitionStores(tmp_path / "history")
    made.own(range(3))
    yield made
    made.close()


def test_the_offset_stays_before_an_older_record_until_the_newer_one_follows(stores: PartitionStores) -> None:
    replica = Replica(stores)
    replica.apply(0, PartitionChunk([(b"a", record(9)), (b"b", record(1))], 1))
    assert (replica.overwritten[0], stores.offset(0)) == (set(), 1)
    replica.apply(0, PartitionChunk([(b"a", record(4))], 2))
    replica.apply(0, PartitionChunk([(b"b", record(2))], 3))
    assert (replica.overwritten[0], stores.offset(0)) == ({b"a"}, 1)
    replica.apply(0, PartitionChunk([(b"a", record(9))], 4))
    assert replica.overwritten[0] == set()
    assert stores.offset(0) == 1, "a chunk that begins with an overwritten user does not move the offset"
    replica.apply(0, PartitionChunk([(b"b", record(3))], 5))
    assert stores.offset(0) == 5


def test_only_partitions_with_unread_records_are_read(stores: PartitionStores) -> None:
    stores.set_offset(0, 4)
    stores.set_offset(1, 4)
    assert first_unread_offsets(stores, {0: 5, 1: 7, 2: 0}) == {1: 5}


def test_a_store_ahead_of_the_changelog_is_emptied(stores: PartitionStores, caplog: pytest.LogCaptureFixture) -> None:
    stores.restore(0, [(b"a", record(9))], 9)
    assert first_unread_offsets(stores, {0: 5}) == {0: 0}
    assert stores.read(0, [b"a"]) == [None]
    assert "ahead of the changelog" in caplog.text
