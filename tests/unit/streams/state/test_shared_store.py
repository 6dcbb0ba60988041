"""Stores that one thread writes and others read, with the real RocksDB."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import TransientError
from streams.errors import RestartRequired
from streams.history import history_fence
from streams.state.shared_store import SharedStores
from tests.unit.changelog import damage_first_block, record


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[SharedStores]:
    made = SharedStores(tmp_path / "copy", history_fence, "service.data_dir")
    made.own([0, 1])
    for partition in (0, 1):
        made.restore(partition, [(b"a", record(1, partition))], 0)
    yield made
    made.close()


def test_a_database_that_is_not_open_is_unavailable(stores: SharedStores) -> None:
    assert stores.peek(0, [b"a", b"x"]) == [record(1), None]
    stores.own([1])
    with pytest.raises(TransientError, match="partition 0 is being restored"):
        stores.peek(0, [b"a"])
    assert stores.peek(1, [b"a"]) == [record(1, 1)]


def test_reading_goes_on_while_databases_are_opened_written_and_closed(stores: SharedStores) -> None:
    """RocksDB's wrapper refuses to close a database while it is read: then closing must wait."""
    done = threading.Event()
    faults: list[BaseException] = []
    counts = [0] * 4
    keys = [f"{n}".encode() for n in range(2000)]

    def read(reader: int) -> None:
        while not done.is_set():
            try:
                found = stores.peek(0, keys)
                assert len(found) == len(keys)
                counts[reader] += 1
            except TransientError:
                pass
            except BaseException as error:  # noqa: BLE001 - reported by the test
                faults.append(error)
                return

    readers = [threading.Thread(target=read, args=(n,)) for n in range(len(counts))]
    for reader in readers:
        reader.start()
    for number in range(30):
        stores.own([1])
        stores.own([0, 1])
        stores.restore(0, [(key, record(number)) for key in keys], number)
        if number % 10 == 9:
            stores.clear(0)
    done.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert sum(counts) > 0


def test_what_a_reader_finds_damaged_is_set_aside_by_the_writer(stores: SharedStores, tmp_path: Path) -> None:
    stores.restore(0, [(f"{n}".encode(), record(n)) for n in range(1000)], 1000)
    stores.close()
    damage_first_block(tmp_path / "copy" / "0")
    stores.own([0, 1])
    assert (stores.offset(0), stores.offset(1)) == (1000, 0)
    with pytest.raises(TransientError, match="partition 0 cannot be read: Corruption"):
        stores.peek(0, [b"0"])
    assert stores.damaged() == 0
    with pytest.raises(RestartRequired, match="set aside as"):
        stores.raise_read_faults()
    stores.raise_read_faults()
    assert stores.damaged() == 1
    stores.own([0, 1])
    assert stores.offset(0) == -1
    assert stores.peek(0, [b"a"]) == [None]
    assert stores.peek(1, [b"a"]) == [record(1, 1)]


def test_its_age_is_kept_and_unknown_if_the_clock_was_set_back(
    stores: SharedStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert stores.age_s() is None
    stores.set_age(5.0)
    now += 60.0
    reopened = SharedStores(tmp_path / "copy", history_fence, "service.data_dir")
    assert reopened.age_s() == pytest.approx(65.0, abs=1e-3)
    now -= 66.0
    assert reopened.age_s() is None
