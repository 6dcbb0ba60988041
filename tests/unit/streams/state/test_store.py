"""The local history store, with the real RocksDB."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from streams.errors import PartitionLost, RestartRequired
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
    stores.restore(3, [(b"a", record(1, 3))], 5)
    stores.write(3, {b"b": b"2"}, [6])
    stores.close()
    again = PartitionStores(tmp_path / "history")
    again.own([3])
    assert again.read(3, [b"a", b"b"]) == [record(1, 3), b"2"]
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


def test_the_store_knows_how_far_the_changelog_reached_also_where_its_offset_stays(stores: PartitionStores) -> None:
    stores.write(0, {b"a": record(1)}, [4])  # another worker's records are before it
    stores.reach(1, 3)
    stores.reach(1, 2)
    assert [stores.offset(p) for p in (0, 1, 2)] == [-1, -1, -1]
    assert [stores.reached(p) for p in (0, 1, 2)] == [5, 3, 0]


def test_restoring_keeps_the_newer_record_and_returns_users_who_need_a_repair(stores: PartitionStores) -> None:
    late = record(35)  # sent by a worker that had been paused
    records = [(b"a", record(30)), (b"a", record(40)), (b"b", record(1)), (b"b", None), (b"a", late)]
    assert stores.restore(0, records, 6) == ({b"a"}, set(), [])
    assert stores.read(0, [b"a", b"b"]) == [record(40), None]
    assert stores.offset(0) == -1, "not before a is repaired"
    assert stores.restore(0, [(b"a", record(38))], 7) == ({b"a"}, set(), [])
    assert stores.read(0, [b"a"]) == [record(40)], "the record in the store counts, too"
    assert stores.restore(0, [(b"a", record(38)), (b"a", record(40))], 9) == (set(), {b"a"}, [])
    assert stores.offset(0) == 9
    assert stores.restore(0, [(b"a", None)], 10) == (set(), set(), [])
    assert stores.read(0, [b"a"]) == [None]
    stores.restore(0, [(b"a", record(50))], None)
    assert stores.offset(0) == 10
    stores.set_offset(0, 11)
    assert stores.offset(0) == 11


@pytest.mark.parametrize("stray", [b"", b"something else", record(9, partition=1)])
def test_what_is_no_history_record_is_not_restored(stores: PartitionStores, stray: bytes) -> None:
    messages = [(b"a", record(1)), (b"b", stray), (None, stray), (b"\xffoffset", b"77"), (b"\xffoffset", None)]
    assert stores.restore(0, messages, 4) == (set(), set(), [1, 2, 3, 4])
    assert stores.read(0, [b"a", b"b"]) == [record(1), None]
    assert stores.offset(0) == 4
    assert stores.restore(0, [(b"a", stray), (b"b", stray), (b"b", record(0))], 7) == ({b"a"}, set(), [0, 1])
    assert stores.read(0, [b"a", b"b"]) == [record(1), record(0)]
    assert stores.offset(0) == 4, "compaction would keep the message: not before a is repaired"
    assert stores.restore(0, [(b"a", record(1))], 8) == (set(), set(), [])
    assert stores.offset(0) == 8


#: Name → how it damages a closed database; RocksDB notices these when it opens it.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "an empty CURRENT": lambda folder: (folder / "CURRENT").write_bytes(b""),
    "garbage in CURRENT": lambda folder: (folder / "CURRENT").write_bytes(b"garbage"),
    "no CURRENT": lambda folder: (folder / "CURRENT").unlink(),
    "no MANIFEST": lambda folder: _one(folder, "MANIFEST-*").unlink(),
    "a truncated MANIFEST": lambda folder: os.truncate(_one(folder, "MANIFEST-*"), 40),
    "a truncated table": lambda folder: os.truncate(_one(folder, "*.sst"), 40),
    "no table": lambda folder: _one(folder, "*.sst").unlink(),
    "a folder as LOCK": lambda folder: _replace_by_folder(folder / "LOCK"),
    "a file instead of the folder": lambda folder: _replace_by_file(folder),
}


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def _one(folder: Path, pattern: str) -> Path:
    return next(folder.glob(pattern))


def _close(stores: PartitionStores) -> None:
    """Write a database to disk and close it; it has one table, and an empty log."""
    stores._open[0].flush()
    stores.close()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_set_aside_when_it_is_opened(
    stores: PartitionStores, tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        stores.own([0, 1])
        stores.write(0, {b"a": b"1"}, [0])
        stores.write(1, {b"a": b"1"}, [0])
        _close(stores)
        damage(tmp_path / "history" / "0")
        stores.own([0, 1])
        assert stores.offset(0) == -1, "everything is restored"
        assert stores.read(0, [b"a"]) == [None]
        assert stores.read(1, [b"a"]) == [b"1"], "the other partition is not"
        assert stores.damaged() == 1, "only the newest is kept"
        assert caplog.text.count("history/0 is damaged (") == number + 1
    assert "0.damaged-" in caplog.text


@pytest.mark.parametrize("content", [b"", b"4711"])
def test_a_lock_file_that_was_left_behind_does_no_harm(stores: PartitionStores, tmp_path: Path, content: bytes) -> None:
    stores.write(0, {b"a": b"1"}, [0])
    stores.close()
    (tmp_path / "history" / "0" / "LOCK").write_bytes(content)
    stores.own([0])
    assert stores.read(0, [b"a"]) == [b"1"]


def test_a_database_that_is_damaged_while_it_is_used_does_not_become_empty(
    stores: PartitionStores, tmp_path: Path
) -> None:
    stores.write(0, {b"%d" % n: record(n) for n in range(1000)}, range(1000))
    _close(stores)
    table = _one(tmp_path / "history" / "0", "*.sst")
    content = bytearray(table.read_bytes())
    content[:2000] = bytes(2000)
    table.write_bytes(content)
    stores.own([0])
    with pytest.raises(RestartRequired, match=r"history/0 is damaged \(Corruption: .* set aside as 0\.damaged-"):
        stores.read(0, [b"%d" % n for n in range(1000)])
    for call in (lambda: stores.read(0, [b"1"]), lambda: stores.write(0, {b"a": b"1"}, [0]), lambda: stores.offset(0)):
        with pytest.raises(RestartRequired):
            call()
    assert not (tmp_path / "history" / "0").exists()
    assert stores.damaged() == 1
    stores.own([0])
    assert stores.offset(0) == -1


def test_a_value_that_cannot_be_an_offset_is_damage(stores: PartitionStores) -> None:
    stores.write(0, {b"\xffoffset": record(1)}, [5])
    with pytest.raises(RestartRequired, match="damaged"):
        stores.offset(0)


class _FullDisk:
    """A database on a disk that is full: RocksDB's text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get(self, keys: object) -> object:
        return None if isinstance(keys, bytes) else []

    def write(self, *_: object) -> None:
        raise Exception(self._text)

    close = flush = write


FULL = "IO error: No space left on device: While appending to file: /data/history/0/000008.sst: No space left on device"


@pytest.mark.parametrize("text", [FULL, "No space left on device (os error 28)", "IO error: Disk quota exceeded"])
def test_a_full_disk_is_no_damage(stores: PartitionStores, text: str) -> None:
    stores.write(0, {b"a": b"1"}, [0])
    database, stores._open[0] = stores._open[0], cast("Any", _FullDisk(text))
    with pytest.raises(RestartRequired, match=r"the disk of .*history/0 is full .*Free space, or set worker\.data_dir"):
        stores.write(0, {b"a": b"2"}, [1])
    database.close()
    stores.own([0])
    assert stores.read(0, [b"a"]) == [b"1"]
    assert stores.damaged() == 0


def test_a_database_that_another_process_uses_is_no_damage(stores: PartitionStores, tmp_path: Path) -> None:
    stores.write(0, {b"a": b"1"}, [0])
    other = PartitionStores(tmp_path / "history")
    other.own([0])
    with pytest.raises(RestartRequired, match=r"used by another process .*worker\.data_dir of its own"):
        other.offset(0)
    assert stores.read(0, [b"a"]) == [b"1"]
    assert stores.damaged() == 0


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
