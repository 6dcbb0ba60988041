"""The local history store, with the real RocksDB."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import FatalError
from streams.errors import PartitionLost
from streams.history import CorruptHistoryError
from streams.state.store import PartitionStores
from tests.unit.changelog import record

ROOT = Path(__file__).parents[4]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PartitionStores]:
    made = PartitionStores(tmp_path / "history")
    made.own(range(8))
    yield made
    made.close()


def test_partitions_are_separate_and_reads_keep_the_order(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1", b"b": b"2"}, [0, 1])
    stores.write(1, {b"a": b"other"}, [0])
    assert stores.read(0, [b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert stores.read(1, [b"a"]) == [b"other"]
    assert stores.read(2, []) == []
    assert [stores.offset(p) for p in (0, 1, 2)] == [1, 0, -1]


def test_records_and_their_offset_survive_a_restart(stores: PartitionStores, tmp_path: Path) -> None:
    stores.restore(3, [(b"a", record(1))], 5)
    stores.write(3, {b"b": b"2"}, [6])
    stores.close()
    again = PartitionStores(tmp_path / "history")
    again.own([3])
    assert again.read(3, [b"a", b"b"]) == [record(1), b"2"]
    assert again.offset(3) == 6
    again.close()


def test_a_revoked_partition_can_only_be_used_when_it_is_assigned_again(stores: PartitionStores) -> None:
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


def test_clear_empties_only_its_partition(stores: PartitionStores) -> None:
    stores.write(0, {b"a": b"1"}, [0])
    stores.write(1, {b"a": b"1"}, [0])
    stores.clear(0)
    assert stores.read(0, [b"a"]) == [None]
    assert stores.offset(0) == -1
    assert stores.read(1, [b"a"]) == [b"1"]


def test_the_offset_only_moves_past_records_that_the_store_has(stores: PartitionStores) -> None:
    """Another worker's records in between have not been read yet."""
    stores.write(0, {b"a": b"1", b"b": b"2"}, [1, 0])
    assert stores.offset(0) == 1
    stores.write(0, {b"a": b"3"}, [5])
    assert stores.read(0, [b"a"]) == [b"3"]
    assert stores.offset(0) == 1, "2 to 4 are another worker's: the next restore starts at 2"


def test_a_store_belongs_to_one_changelog_topic(stores: PartitionStores) -> None:
    stores.bind("id-1")
    stores.bind("id-1")
    with pytest.raises(FatalError, match=r"worker\.data_dir"):
        stores.bind("id-2")


def test_a_process_that_was_killed_in_bind_can_bind_again(
    stores: PartitionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: Path, _text: str) -> None:
        file.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            stores.bind("id-1")
    stores.bind("id-1")
    stores.bind("id-1")


def test_restoring_keeps_the_newer_record_and_returns_users_who_need_a_repair(stores: PartitionStores) -> None:
    late = record(35)  # sent by a worker that had been paused
    records = [(b"a", record(30)), (b"a", record(40)), (b"b", record(1)), (b"b", None), (b"a", late)]
    assert stores.restore(0, records, 6) == {b"a"}
    assert stores.read(0, [b"a", b"b"]) == [record(40), None]
    assert stores.offset(0) == -1, "not before a is repaired"
    assert stores.restore(0, [(b"a", record(38))], 7) == {b"a"}
    assert stores.read(0, [b"a"]) == [record(40)], "the record in the store counts, too"
    assert stores.restore(0, [(b"a", record(38)), (b"a", record(40))], 9) == set()
    assert stores.offset(0) == 9
    assert stores.restore(0, [(b"a", None)], 10) == set()
    assert stores.read(0, [b"a"]) == [None]
    stores.restore(0, [(b"a", record(50))], None)
    assert stores.offset(0) == 10
    stores.set_offset(0, 11)
    assert stores.offset(0) == 11


@pytest.mark.parametrize("broken", [b"", b"something else"])
def test_restoring_rejects_values_that_are_not_histories(stores: PartitionStores, broken: bytes) -> None:
    with pytest.raises(CorruptHistoryError):
        stores.restore(0, [(b"a", record(1)), (b"b", broken)], 1)
    assert stores.read(0, [b"a", b"b"]) == [None, None]
    assert stores.offset(0) == -1


#: Restores 60,000 records of full length, which take more than one of RocksDB's memory tables, and is killed.
_KILLED = """
import os, signal, sys
from pathlib import Path
from streams.state.store import PartitionStores
from tests.unit.changelog import record
stores = PartitionStores(Path(sys.argv[1]))
stores.own([0])
for first in range(0, 60_000, 1000):
    stores.restore(0, [(b"%d" % n, record(n) + bytes(152)) for n in range(first, first + 1000)], first + 999)
if sys.argv[2] == "write":
    stores.write(0, {b"last": record(60_000)}, [60_000])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("last", ["restore", "write"])
def test_a_killed_process_leaves_the_records_up_to_its_offset(tmp_path: Path, last: str) -> None:
    """RocksDB logs what is written, and not what is restored."""
    folder = tmp_path / "history"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(folder), last], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = PartitionStores(folder)
    again.own([0])
    offset = again.offset(0)
    assert offset == 60_000 if last == "write" else 0 < offset < 60_000
    found = again.read(0, [b"%d" % n for n in range(min(offset, 59_999) + 1)])
    assert found == [record(n) + bytes(152) for n in range(len(found))]
    assert again.read(0, [b"last"]) == [record(60_000) if last == "write" else None]
    again.close()
