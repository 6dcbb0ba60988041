"""Restoring the store and repairing the changelog, on the real RocksDB and a changelog in memory."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import TransientError
from streams.errors import PartitionLost
from streams.history import History, fence_offset, is_user_key, newer_record
from streams.ports import Output
from streams.state.restore import Restorer
from streams.state.store import PartitionStores
from tests.unit.changelog import ChangelogRecordProducer, MemoryChangelog, record


class Worker:
    """One worker's histories of partition 0. It writes as `streams.processing.clicks` does, and is killed on demand."""

    def __init__(self, folder: Path, changelog: MemoryChangelog) -> None:
        self.changelog = changelog
        self.producer = ChangelogRecordProducer(changelog)
        self.stores = PartitionStores(folder)
        self.restorer = Restorer(changelog, self.stores, self.producer)
        self.stores.own([0])

    def fence(self, user: bytes) -> int:
        (known,) = self.stores.read(0, [user])
        return -1 if known is None else History.from_bytes(known).offset

    def click(self, user: bytes, clicks: int = 1) -> None:
        """Apply the next clicks after those that this worker knows."""
        new = record(self.fence(user) + clicks)
        self.stores.write(0, {user: new}, self.producer.send([Output("changelog", user, new, 0)]))

    def maintain(self) -> int:
        return self.restorer.maintain([0])

    def records(self) -> Mapping[bytes, bytes | None]:
        users = sorted(filter(is_user_key, self.changelog.compacted()))
        return dict(zip(users, self.stores.read(0, users), strict=True))


@pytest.fixture
def changelog() -> MemoryChangelog:
    return MemoryChangelog()


@pytest.fixture
def worker(tmp_path: Path, changelog: MemoryChangelog) -> Iterator[Worker]:
    made = Worker(tmp_path / "history", changelog)
    yield made
    made.stores.close()


def test_nothing_is_read_while_no_other_worker_writes(worker: Worker) -> None:
    for _ in range(3):
        worker.click(b"a")
        assert worker.maintain() == 0
    assert worker.changelog.readers == 0


def test_an_older_record_behind_a_newer_one_is_repaired_once(
    worker: Worker, changelog: MemoryChangelog, caplog: pytest.LogCaptureFixture
) -> None:
    worker.click(b"a", clicks=10)
    changelog.log[0] += [(b"a", record(7)), (b"b", record(5))]  # a zombie
    worker.click(b"b", clicks=20)
    assert worker.stores.offset(0) == 0, "other workers' records are in between"
    assert worker.maintain() == worker.restorer.applied == 3
    assert changelog.log[0][4:] == [(b"a", record(9))], "b's own record is the last one already"
    assert worker.stores.offset(0) == 4, "the repair is the worker's own"
    assert "wrote 1 records again" in caplog.text
    assert worker.maintain() == 0
    assert len(changelog.log[0]) == 5


def test_repairs_of_partitions_that_were_revoked_are_forgotten(worker: Worker, changelog: MemoryChangelog) -> None:
    worker.click(b"a", clicks=5)
    ChangelogRecordProducer(changelog).send([Output("changelog", b"a", record(2), 0)])
    worker.maintain()
    assert worker.restorer.repaired == {0: {4}}
    worker.restorer.acquire([0])
    assert worker.restorer.repaired == {0: {4}}, "its users are still to be answered"
    worker.restorer.acquire([])
    assert worker.restorer.repaired == {}, "their clicks could not be answered here"


def test_a_record_that_is_ahead_is_adopted(worker: Worker, changelog: MemoryChangelog) -> None:
    worker.click(b"a", clicks=3)
    changelog.log[0].append((b"a", record(9)))
    worker.maintain()
    assert worker.fence(b"a") == 9
    worker.click(b"b")
    changelog.log[0].append((b"b", record(6)))
    worker.click(b"b")  # before it has read that record
    worker.maintain()
    assert changelog.compacted() == {b"a": record(9), b"b": record(6)}


def test_a_lost_acknowledgement_does_not_send_the_repair_again(worker: Worker, changelog: MemoryChangelog) -> None:
    worker.click(b"a", clicks=10)
    worker.click(b"b", clicks=10)
    changelog.log[0] += [(b"a", record(7)), (b"b", record(7))]
    worker.producer.survivors = 1
    with pytest.raises(TransientError):
        worker.maintain()
    assert worker.stores.offset(0) == 1, "the older records are still to be repaired"
    worker.maintain()
    assert changelog.log[0][4:] == [(b"a", record(9)), (b"b", record(9))]


def test_a_repair_is_not_forgotten_when_the_process_dies_before_it(
    worker: Worker, changelog: MemoryChangelog, tmp_path: Path
) -> None:
    changelog.chunk_size = 1
    worker.click(b"a", clicks=10)
    changelog.log[0] += [(b"a", record(7)), *((b"b", record(n)) for n in range(5))]
    worker.producer.survivors = 0
    with pytest.raises(TransientError):
        worker.maintain()
    worker.stores.close()
    again = Worker(tmp_path / "history", changelog)
    again.restorer.acquire([0])
    assert again.producer.sent == [Output("changelog", b"a", record(9), 0)]
    again.stores.close()


def test_an_interrupted_acquisition_continues_where_it_ended(tmp_path: Path) -> None:
    changelog = MemoryChangelog(chunk_size=2)
    changelog.log[0] = [(f"{n % 7}".encode(), record(n)) for n in range(20)]
    for cut in range(11):
        worker = Worker(tmp_path / str(cut), changelog)
        left = [cut]

        def lose(worker: Worker = worker, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                worker.stores.disown()

        changelog.before_chunk = lose
        if 0 < cut <= 10:
            with pytest.raises(PartitionLost):
                worker.restorer.acquire([0])
        restored = worker.restorer.acquire([0])
        assert worker.records() == changelog.compacted()
        assert worker.stores.offset(0) == 19
        assert restored == 20 - 2 * max(0, cut - 1), "it continues where it ended"
        worker.stores.close()


def test_a_removed_user_stays_removed_until_the_next_record(worker: Worker, changelog: MemoryChangelog) -> None:
    worker.click(b"a", clicks=10)
    worker.click(b"b", clicks=10)
    changelog.log[0] += [(b"a", None), (b"b", None), (b"b", record(3))]
    worker.maintain()
    assert worker.records() == {b"a": None, b"b": record(3)}
    assert worker.producer.sent[2:] == []


def test_a_store_ahead_of_the_changelog_is_restored_from_its_beginning(
    worker: Worker, changelog: MemoryChangelog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kafka lost the end. Another process only knows that the records of all committed clicks are there."""
    for user in (b"a", b"b", b"c"):
        worker.click(user)
    del changelog.log[0][1:]
    worker.stores.close()
    other = Worker(tmp_path / "history", changelog)
    other.stores.reach(0, 1)
    assert other.restorer.acquire([0]) == 1
    assert other.stores.read(0, [b"a", b"b", b"c"]) == [record(0), None, None]
    assert "ahead of the changelog" in caplog.text
    other.stores.close()


def test_a_stale_end_of_the_changelog_changes_nothing(worker: Worker, changelog: MemoryChangelog) -> None:
    """A broker that is not up to date must not empty a right store, nor hide records whose clicks are committed."""
    for user in (b"a", b"b", b"c"):
        worker.click(user)
    changelog.log[0].append((b"d", record(7)))
    assert worker.maintain() == 1
    changelog.stale = 2
    with pytest.raises(TransientError, match=r"ends at offset 2 .* up to 4: .* --group changelog .*--reset-offsets"):
        worker.maintain()
    assert changelog.renewed == 1, "another broker may lead the partition now"
    assert worker.records() == changelog.compacted()
    changelog.stale = 0
    assert worker.maintain() == 0
    assert len(changelog.log[0]) == 4, "nothing was repaired"


def test_partitions_are_not_restored_up_to_a_stale_end(tmp_path: Path, changelog: MemoryChangelog) -> None:
    changelog.log[0] = [(b"a", record(4)), (b"a", record(9))]
    changelog.stale = 1
    new = Worker(tmp_path / "new", changelog)
    new.stores.reach(0, 2)
    with pytest.raises(TransientError, match="ends at offset 1"):
        new.restorer.acquire([0])
    assert (new.fence(b"a"), changelog.readers) == (-1, 0)
    changelog.stale = 0
    new.restorer.acquire([0])
    assert new.fence(b"a") == 9
    new.stores.close()


def test_other_programs_messages_are_ignored_and_histories_written_again(
    worker: Worker, changelog: MemoryChangelog, tmp_path: Path
) -> None:
    worker.click(b"a", clicks=10)
    worker.click(b"b", clicks=10)
    changelog.log[0] += STRAYS
    worker.click(b"c")
    assert worker.maintain() == len(STRAYS) + 1
    assert changelog.log[0][3 + len(STRAYS) :] == [(b"a", record(9))]
    assert worker.stores.offset(0) == len(changelog.log[0]) - 1
    assert worker.maintain() == 0
    other = Worker(tmp_path / "a lost disk", changelog)
    other.restorer.acquire([0])
    assert other.producer.sent == []
    assert other.stores.read(0, [b"a", b"b", b"c"]) == [record(9), record(9), record(0)]
    other.stores.close()


def test_a_tombstone_removes_a_user_whose_history_another_program_overwrote(
    worker: Worker, changelog: MemoryChangelog
) -> None:
    worker.click(b"a", clicks=10)
    changelog.log[0] += [(b"a", b"hello"), (b"a", None)]
    worker.maintain()
    assert worker.records() == {b"a": None}
    assert worker.producer.sent[1:] == []


def test_a_user_whose_history_was_compacted_away_begins_with_an_empty_one(
    worker: Worker, changelog: MemoryChangelog, caplog: pytest.LogCaptureFixture
) -> None:
    changelog.log[0].append((b"a", b"hello"))
    worker.maintain()
    assert "offset 0 with key b'a'" in caplog.text
    assert "the user begins with an empty one" in caplog.text
    worker.click(b"a")
    assert worker.maintain() == 0
    assert changelog.compacted() == {b"a": record(0)}


def test_acquiring_partitions_logs_how_much_was_restored(
    worker: Worker, changelog: MemoryChangelog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    changelog.log[0].append((b"a", record(1)))
    worker.restorer.acquire([0])
    assert "acquired partitions 0: restored 1 records in" in caplog.text


USERS = (b"a", b"b", b"c")
NO_USERS = (None, b"", b"\xff\xfe", b"\xffoffset")
#: Messages of another program, the store's own key among theirs. Only `a`'s is one that compaction would keep.
STRAYS: list[tuple[bytes | None, bytes | None]] = [
    (None, b"hello"),
    (None, None),
    (b"", b"hello"),
    (b"\xff\xfe", record(7)),
    (b"\xffoffset", b"5"),
    (b"\xffoffset", record(7)),
    (b"\xffoffset", None),
    (b"a", b""),
    (b"a", record(99, partition=5)),
    (b"no user", b"hello"),
]
#: Events: a worker answers clicks, maintains its partitions (and is cut off), or loses process or disk.
events = st.lists(
    st.one_of(
        st.tuples(st.just("click"), st.integers(0, 1), st.sampled_from(USERS), st.integers(1, 4)),
        st.tuples(st.just("late"), st.integers(0, 1), st.sampled_from(USERS), st.integers(0, 12)),
        st.tuples(st.just("stray"), st.just(0), st.sampled_from((*USERS, *NO_USERS)), st.integers(0, 3)),
        st.tuples(st.just("maintain"), st.integers(0, 1), st.none(), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.integers(0, 1), st.none(), st.integers(0, 1)),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(events=events, chunk=st.integers(1, 4))
def test_whatever_zombies_and_other_programs_write_the_newest_record_wins_and_is_the_last(
    events: list[tuple[str, int, bytes | None, int]], chunk: int
) -> None:
    """Two workers believe that they own the same partition, and both are cut off anywhere."""
    changelog = MemoryChangelog(chunk_size=chunk)
    with tempfile.TemporaryDirectory() as folder:
        workers = [Worker(Path(folder) / "0", changelog), Worker(Path(folder) / "1", changelog)]
        for number, (event, which, user, n) in enumerate(events):
            worker = workers[which]
            if event == "click":
                worker.click(user or b"", n)
            elif event == "late":  # sent, and paused or killed before the store was written
                changelog.log[0].append((user or b"", record(n)))
            elif event == "stray":
                value = (b"hello", b"", record(50 + n, partition=1), b"5" if user in USERS else None)[n]
                changelog.log[0].append((user, value))
            elif event == "maintain":
                worker.producer.survivors = n or None
                with suppress(TransientError):
                    worker.maintain()
                worker.producer.survivors = None
            else:
                worker.stores.close()
                new_folder = Path(folder) / (str(which) if n else f"{number}-disk-lost")
                workers[which] = Worker(new_folder, changelog)
        newest: dict[bytes, bytes] = {}
        for user, value in changelog.log[0]:
            if user in USERS and value is not None and fence_offset(value, 0) is not None:
                newest[user] = newer_record(newest.get(user, value), value)
        overwritten = {user for user in newest if changelog.compacted()[user] != newest[user]}
        owner, other = workers
        before = len(changelog.log[0])
        owner.restorer.repaired.clear()
        owner.maintain()
        without = {user: None for user in owner.records() if user not in newest}
        assert owner.records() == newest | without
        assert {user: changelog.compacted()[user] for user in newest} == newest
        assert [user for user, _ in changelog.log[0][before:]] == sorted(overwritten), "only what needs a repair"
        assert owner.stores.offset(0) == len(changelog.log[0]) - 1
        assert owner.maintain() == 0
        other.maintain()
        assert other.records() == newest | without
        assert len(changelog.log[0]) == before + len(overwritten), "the other worker repairs nothing"
        fences = {fence_offset(newest[user], 0) for user in overwritten}
        assert owner.restorer.repaired.get(0, set()) >= fences - {-1, None}, "their users are answered again"
        for worker in workers:
            worker.stores.close()
