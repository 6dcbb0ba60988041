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
    replica.apply(0, PartitionChunk([(b"a", record(9)), (b"b", record(1))], [0, 1]))
    assert (replica.overwritten[0], stores.offset(0)) == (set(), 1)
    replica.apply(0, PartitionChunk([(b"a", record(4))], [2]))
    replica.apply(0, PartitionChunk([(b"b", record(2))], [3]))
    assert (replica.overwritten[0], stores.offset(0)) == ({b"a"}, 1)
    replica.apply(0, PartitionChunk([(b"a", record(9))], [4]))
    assert replica.overwritten[0] == set()
    assert stores.offset(0) == 1, "a chunk that begins with an overwritten user does not move the offset"
    replica.apply(0, PartitionChunk([(b"b", record(3))], [5]))
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


def test_other_programs_messages_are_counted_and_logged_once(
    stores: PartitionStores, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    replica = Replica(stores, counted.append)
    strays = [(None, b"hello"), (b"\xffoffset", b"7"), (b"\xffoffset", None), (b"a", b"hello"), (b"b", b"hello")]
    replica.apply(0, PartitionChunk([(b"a", record(9)), *strays], [2, 3, 5, 6, 8, 9]))
    replica.apply(0, PartitionChunk(strays, range(10, 15)))
    assert counted == [5, 5]
    assert replica.overwritten[0] == {b"a"}, "b has no history that could be written again"
    no_user, again, lost = (r.getMessage() for r in caplog.records)
    assert "partition 0: the message at offset 3 with key None is no history record" in no_user
    assert "offset 8 with key b'a'" in again
    assert "writes the user's history again" in again
    assert "offset 9 with key b'b'" in lost
    assert "the user begins with an empty one" in lost
    assert stores.read(0, [b"a", b"b"]) == [record(9), None]
    assert stores.offset(0) == -1, "the offset stays before the message that is to be repaired"
    replica.apply(0, PartitionChunk([(b"a", record(9))], [15]))
    assert replica.overwritten[0] == set()
