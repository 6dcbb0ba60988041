"""The standby, with the real RocksDB and a changelog in memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.state.restore import Restorer
from streams.state.standby import Standby
from streams.state.store import PartitionStores
from tests.site import wait_for
from tests.unit.changelog import ChangelogRecordProducer, MemoryChangelog, record

PARTITIONS = range(4)


class Worker:
    """A worker's stores with a standby beside them."""

    def __init__(self, folder: Path, changelog: MemoryChangelog) -> None:
        self.stores = PartitionStores(folder)
        self.producer = ChangelogRecordProducer(changelog)
        self.standby = Standby(changelog, PartitionStores(folder), PARTITIONS, retry_s=0.01)
        self.acquire = self.standby.wrap_acquire(Restorer(changelog, self.stores, self.producer).acquire)

    def close(self) -> None:
        self.standby.close()
        self.stores.close()


@pytest.fixture
def changelog() -> MemoryChangelog:
    made = MemoryChangelog(len(PARTITIONS))
    for partition in PARTITIONS:
        made.log[partition] = [(f"{n}".encode(), record(n, partition)) for n in range(10)]
    return made


@pytest.fixture
def worker(tmp_path: Path, changelog: MemoryChangelog) -> Iterator[Worker]:
    made = Worker(tmp_path / "history", changelog)
    yield made
    made.close()


@pytest.fixture
def caught_up(caplog: pytest.LogCaptureFixture) -> Callable[[int], bool]:
    caplog.set_level(logging.INFO)
    return lambda partition: f"standby for partition {partition} has caught up" in caplog.text


def test_acquiring_a_followed_partition_restores_only_the_latest_records(
    worker: Worker, changelog: MemoryChangelog, caught_up: Callable[[int], bool]
) -> None:
    assert worker.acquire([0, 1]) == 20
    wait_for(lambda: caught_up(2) and caught_up(3), "the standby")
    assert worker.acquire([0, 1, 2]) == 0
    assert worker.stores.read(2, [b"0", b"9"]) == [record(0, 2), record(9, 2)]
    worker.standby.follow([])
    changelog.log[3].append((b"new", record(10, 3)))
    assert worker.acquire([3]) == 1
    assert worker.stores.read(3, [b"9", b"new"]) == [record(9, 3), record(10, 3)]


def test_partitions_move_between_worker_and_standby(worker: Worker, changelog: MemoryChangelog) -> None:
    """RocksDB refuses to open a database twice: the one that gives up a partition has to close it first."""
    for number in range(20):
        owned = [p for p in PARTITIONS if (number >> p) % 2]
        worker.acquire(owned)
        for partition in owned:
            assert worker.stores.offset(partition) == len(changelog.log[partition]) - 1
        for partition in PARTITIONS:
            changelog.log[partition].append((b"x", record(10 + number, partition)))


def test_the_standby_follows_new_records(
    worker: Worker, changelog: MemoryChangelog, caught_up: Callable[[int], bool]
) -> None:
    worker.acquire([])
    wait_for(lambda: all(map(caught_up, PARTITIONS)), "the standby")
    changelog.log[1].append((b"new", record(10, 1)))
    wait_for(lambda: worker.standby._stores.offset(1) == 10, "the new record")
    assert worker.acquire([1]) == 0


def test_an_older_record_is_left_for_the_owner_to_repair(
    worker: Worker, changelog: MemoryChangelog, caught_up: Callable[[int], bool]
) -> None:
    changelog.log[1].append((b"9", record(3, 1)))  # a zombie
    changelog.chunk_size = 5
    worker.acquire([0])
    wait_for(lambda: caught_up(1), "the standby")
    assert worker.producer.sent == []
    assert worker.acquire([1]) > 0, "from before the older record"
    assert changelog.log[1][-1] == (b"9", record(9, 1))


def test_the_standby_retries_after_faults(
    worker: Worker, changelog: MemoryChangelog, caught_up: Callable[[int], bool], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("some defect")

    changelog.before_chunk = broken
    worker.standby.follow([0])
    wait_for(lambda: "some defect" in caplog.text, "a fault")
    changelog.unavailable = True
    changelog.before_chunk = lambda: None
    wait_for(lambda: "unavailable, for the test" in caplog.text, "another one")
    changelog.unavailable = False
    wait_for(lambda: caught_up(0), "the standby")


def test_another_programs_message_is_left_for_the_owner_to_repair(
    worker: Worker, changelog: MemoryChangelog, caught_up: Callable[[int], bool]
) -> None:
    changelog.log[1] += [(None, b"hello"), (b"\xffoffset", b"99"), (b"9", b"hello")]
    worker.acquire([0])
    wait_for(lambda: caught_up(1), "the standby")
    assert worker.standby._stores.offset(1) == -1, "the history is still to be repaired"
    changelog.log[1].append((b"9", record(9, 1)))  # its owner has repaired it

    def moves() -> bool:
        changelog.log[1].append((b"new", record(10, 1)))
        return worker.standby._stores.offset(1) > 13

    wait_for(moves, "the records after the repair")
    assert worker.producer.sent == []
    worker.acquire([1])
    assert worker.producer.sent == [], "nothing is left to repair"
    assert worker.stores.read(1, [b"9", b"new"]) == [record(9, 1), record(10, 1)]


def test_damaged_copies_are_set_aside_and_made_again(
    worker: Worker, changelog: MemoryChangelog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = tmp_path / "history"
    for partition in (1, 2, 3):
        (history / str(partition)).mkdir(parents=True)
        (history / str(partition) / "CURRENT").touch()
    caplog.set_level(logging.INFO)
    worker.acquire([0])
    wait_for(lambda: caplog.text.count("has caught up") == 3, "the standby")
    assert worker.standby._stores.damaged() == 3
    assert "history/2 is damaged (Corruption: CURRENT" in caplog.text

    # In the middle of the work, too, of which the worker notices nothing.
    worker.standby._stores._open[2].flush()
    for file in (history / "2").glob("*.sst"):
        file.write_bytes(bytes(file.stat().st_size))
    changelog.log[2].append((b"9", record(10, 2)))
    wait_for(lambda: caplog.text.count("standby for partition 2 has caught up") == 2, "a new copy")
    assert re.search(r"the standby waits: .*history/2 is damaged \(Corruption: ", caplog.text)
    assert worker.standby._stores.damaged() == 3, "one of each partition is kept"
    assert worker.acquire([0, 2]) == 0
    assert worker.stores.read(2, [b"8", b"9"]) == [record(8, 2), record(10, 2)]
