"""Following a topic, with the real RocksDB and a topic in memory."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rocksdict
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import FatalError, TransientError
from streams.clock import boot_clock
from streams.errors import RestartRequired
from streams.history import History, history_fence
from streams.ports import ReplicaLag
from streams.state import follower
from streams.state.follower import Follower, Progress
from streams.state.shared_store import SharedStores
from tests.site import wait_for
from tests.unit.changelog import MemoryChangelog, MemoryIdentities, damage_first_block, record

DAY_S = 86_400.0
wall_clock = time.time


class Copy:
    """A topic in memory of two partitions, and what follows it.

    Attributes:
        changed: errors of a topic that is another one now.
        foreign: numbers of messages that were no records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topic = MemoryChangelog(2)
        self.identities = MemoryIdentities(self.topic)
        self.changed: list[RestartRequired] = []
        self.foreign: list[int] = []

    def follow(self, folder: Path | None = None) -> Follower:
        return Follower(
            self.topic,
            SharedStores(folder or self.folder, history_fence, "service.data_dir"),
            self.identities,
            lambda _key, value, _received_at: value,
            self.changed.append,
            DAY_S,
            self.foreign.append,
            0.01,
        )


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    made = Copy(tmp_path / "copy")
    for partition in (0, 1):
        made.topic.log[partition] = [(f"{n}".encode(), record(n, partition)) for n in range(10)]
    return made


@pytest.fixture
def started(copy: Copy) -> Iterator[Callable[[], Follower]]:
    """Return a function that follows the copy, and returns when it has caught up."""
    made: list[Follower] = []

    def start() -> Follower:
        made.append(copy.follow())
        wait_for(lambda: made[-1].lag().caught_up, "the copy")
        return made[-1]

    yield start
    for each in made:
        each.close()


def _holds(follower: Follower, partition: int, key: bytes, wanted: bytes | None) -> Callable[[], bool]:
    return lambda: follower.read(partition, [key]) == [wanted]


def test_all_partitions_are_copied_and_followed(copy: Copy, started: Callable[[], Follower]) -> None:
    follower = started()
    assert list(follower.partitions) == [0, 1]
    assert follower.read(1, [b"9", b"x", b"0"]) == [record(9, 1), None, record(0, 1)]
    copy.topic.log[1].append((b"new", record(10, 1)))
    wait_for(_holds(follower, 1, b"new", record(10, 1)), "a new record")
    copy.topic.log[1].append((b"new", None))
    wait_for(_holds(follower, 1, b"new", None), "its removal")


def test_a_start_continues_where_the_copy_was(copy: Copy, started: Callable[[], Follower]) -> None:
    started().close()
    copy.topic.log[0][:10] = [(b"0", b"read again")] * 10
    copy.topic.log[0].append((b"new", record(10)))
    follower = started()
    assert follower.read(0, [b"0", b"new"]) == [record(0), record(10)]
    assert copy.foreign == []


def test_an_older_record_replaces_no_newer_one_and_is_read_once(copy: Copy, started: Callable[[], Follower]) -> None:
    copy.topic.log[0] += [(b"9", record(3)), (b"last", record(10))]
    follower = started()
    assert follower.read(0, [b"9", b"last"]) == [record(9), record(10)]
    follower.close()
    copy.topic.log[0][10] = (b"9", None)  # would be applied if it was read again
    follower = started()
    assert follower.read(0, [b"9"]) == [record(9)]


def test_messages_of_other_programs_are_counted_and_logged_without_their_key(
    copy: Copy, started: Callable[[], Follower], caplog: pytest.LogCaptureFixture
) -> None:
    copy.topic.log[0] += [(b"9", b"hello"), (None, b"hello"), (b"\xff", None), (b"8", record(7, partition=1))]
    follower = started()
    assert sum(copy.foreign) == 4
    assert caplog.text.count("partition 0: the message at offset 10 is no record") == 1
    assert "b'9'" not in caplog.text
    assert follower.read(0, [b"8", b"9"]) == [record(8), record(9)]


def test_reading_goes_on_while_kafka_is_unavailable(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follower, "_ENDS_INTERVAL_S", 0.01)
    copied = started()
    copy.topic.unavailable = True
    wait_for(lambda: "changelog is not followed: Kafka: unavailable, for the test" in caplog.text, "the outage")
    assert copied.read(0, [b"9"]) == [record(9)]
    before = copied.lag()
    assert before.caught_up
    assert before.age_s is not None
    wait_for(lambda: (copied.lag().age_s or 0) > (before.age_s or 0) + 0.2, "the age to grow")
    copy.topic.log[0].append((b"new", record(10)))
    copy.topic.unavailable = False
    wait_for(_holds(copied, 0, b"new", record(10)), "a new record")
    wait_for(lambda: copied.lag().messages == 0 and (copied.lag().age_s or 0) < 0.2, "the lag")
    assert caplog.text.count("is not followed") == 1, "one line for an outage"


def test_closing_does_not_wait_for_kafka(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_JOIN_S", 0.05)
    copied, answered, waits = started(), threading.Event(), threading.Event()

    def hang() -> None:
        waits.set()
        answered.wait()

    copy.topic.before_chunk = hang
    assert waits.wait(10)
    copied.close()
    assert copied._thread.is_alive()
    assert copied.read(0, [b"9"]) == [record(9)], "the stores are not closed while the thread may write"
    answered.set()
    copied._thread.join()
    copied.close()
    with pytest.raises(TransientError):
        copied.read(0, [b"9"])


@pytest.mark.parametrize("change", ["id", "partitions"])
def test_another_topic_under_the_name_ends_it(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(follower, "_IDENTITY_INTERVAL_S", 0.01)
    started()
    if change == "id":
        copy.identities.id = "Zq1u0/cSTy2TPhf4dXAmFw"
    else:
        copy.topic.log[2] = []
    wait_for(lambda: copy.changed, "the change")
    assert "was deleted and created again, or got more partitions" in str(copy.changed[0])


def test_a_start_refuses_the_copy_of_another_topic(copy: Copy, started: Callable[[], Follower]) -> None:
    started().close()
    copy.identities.id = "Zq1u0/cSTy2TPhf4dXAmFw"
    with pytest.raises(FatalError, match=r"service\.data_dir"):
        copy.follow()


def test_a_topic_that_ends_too_early_empties_no_copy_while_it_is_followed(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follower, "_ENDS_INTERVAL_S", 0.01)
    copied = started()
    copy.topic.stale = 3
    wait_for(lambda: "ends at offset 7 of partition" in caplog.text, "a broker that is not up to date")
    assert copied.read(0, [b"9"]) == [record(9)]
    copy.topic.stale = 0
    copy.topic.log[0].append((b"new", record(10)))
    wait_for(_holds(copied, 0, b"new", record(10)), "a new record")
    copied.close()
    del copy.topic.log[0][3:]
    assert started().read(0, [b"2", b"9"]) == [record(2), None], "a new process copies what Kafka has"


def test_a_damaged_copy_is_made_again(
    copy: Copy,
    started: Callable[[], Follower],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    copy.topic.log[0] += [(f"{n}".encode(), record(n)) for n in range(10, 1000)]
    started().close()
    damage_first_block(copy.folder / "0")
    copied = started()
    assert copied.read(0, [b"9"]) == [record(9)]
    said = list[bool]()
    create = SharedStores._create

    def observed(stores: SharedStores, path: Path) -> rocksdict.Rdict:
        said.append(copied._progress.lag().caught_up)
        return create(stores, path)

    monkeypatch.setattr(SharedStores, "_create", observed)
    with pytest.raises(TransientError, match="cannot be read: Corruption"):  # in the middle of the work
        copied.read(0, [b"0"])
    assert not copied.lag().caught_up

    def restored() -> bool:
        try:
            return copied.lag().caught_up and copied.read(0, [b"0"]) == [record(0)]
        except TransientError:
            return False

    wait_for(restored, "another copy")
    assert "set aside as 0.damaged-" in caplog.text
    assert said == [False], "a new database is empty, so the copy is behind before it can be read"
    assert copied.read(1, [b"9"]) == [record(9, 1)]


@pytest.mark.parametrize(
    ("age_s", "left", "text"),
    [(DAY_S / 2, record(9), "-"), (2 * DAY_S, None, "2.0 days"), (-60.0, None, "an unknown time")],
)
def test_a_copy_that_may_have_missed_removals_is_made_again(
    copy: Copy,
    started: Callable[[], Follower],
    age_s: float,
    left: bytes | None,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Kafka has forgotten the user, and then the removal, too."""
    started().close()
    stores = SharedStores(copy.folder, history_fence, "service.data_dir")
    stores.set_age(age_s)
    copy.topic.log[0][9] = (b"0", record(0))
    copied = started()
    assert copied.read(0, [b"0", b"9"]) == [record(0), left]
    assert (f"was not followed for {text}" in caplog.text) == (left is None)


def test_a_running_copy_that_may_have_missed_removals_ends_the_process(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka was unavailable, or the machine suspended, for longer than Kafka keeps removals."""
    monkeypatch.setattr(follower, "_ENDS_INTERVAL_S", 0.01)
    passed_s = 0.0
    monkeypatch.setattr(follower, "boot_clock", lambda: boot_clock() + passed_s)
    monkeypatch.setattr(time, "time", lambda: wall_clock() + passed_s)
    running = started()
    passed_s = DAY_S / 2
    time.sleep(0.1)
    assert not copy.changed
    passed_s = 2 * DAY_S
    wait_for(lambda: copy.changed, "the end")
    assert "makes the local copy again" in str(copy.changed[0])
    running.close()
    copy.topic.log[0][9] = (b"0", record(0))
    assert started().read(0, [b"9"]) == [None]


def test_the_time_until_which_the_copy_is_complete_is_noted(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_NOTE_INTERVAL_S", 0.01)
    monkeypatch.setattr(follower, "_ENDS_INTERVAL_S", 0.01)
    started()
    stores = SharedStores(copy.folder, history_fence, "service.data_dir")
    wait_for(lambda: (stores.age_s() or 9.0) < 0.1, "the note")
    time.sleep(0.2)
    wait_for(lambda: (stores.age_s() or 9.0) < 0.1, "another note")


def test_the_age_grows_whatever_the_wall_clock_says(
    copy: Copy, started: Callable[[], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_767_225_600.0)
    copied = started()
    copy.topic.unavailable = True
    wait_for(lambda: (copied.lag().age_s or 0.0) > 0.3, "the age to grow")
    assert (copied.lag().age_s or 9.0) < 9.0


USERS = st.sampled_from([b"a", b"b", b"c"])
#: What is written next: by the owner of the partition, by a zombie (so many clicks behind), a removal, or by another
#: program.
WRITES = st.one_of(
    st.tuples(st.just("owner"), USERS, st.just(0)),
    st.tuples(st.just("zombie"), USERS, st.integers(1, 5)),
    st.tuples(st.just("removal"), USERS, st.just(0)),
    st.tuples(st.just("foreign"), USERS, st.just(0)),
)
#: Messages, and whether the process is then killed (True) or stopped (False).
RUNS = st.lists(st.tuples(st.lists(WRITES, max_size=12), st.booleans()), min_size=1, max_size=4)


def _write(
    log: list[tuple[bytes | None, bytes | None]], newest: dict[bytes, int], kind: str, user: bytes, n: int
) -> None:
    """Append a message, and apply it to `newest`: user → fence of the history that must be left."""
    if kind == "foreign":
        log.append((user, b"hello"))
    elif kind == "removal":
        log.append((user, None))
        newest.pop(user, None)
    else:
        fence = max(0, len(log) - n)  # an owner's fence is above all before it
        log.append((user, record(fence)))
        newest[user] = max(fence, newest.get(user, -1))


@settings(max_examples=40, deadline=None)
@given(runs=RUNS, chunk_size=st.integers(1, 5))
def test_any_order_of_records_and_restarts_leaves_what_the_rules_say(
    runs: list[tuple[list[tuple[str, bytes, int]], bool]], chunk_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    copy, newest = Copy(folder / "0"), dict[bytes, int]()
    copy.topic.chunk_size = chunk_size
    for number, (writes, killed) in enumerate(runs):
        for write in writes:
            _write(copy.topic.log[0], newest, *write)
        follower = copy.follow(folder / str(number))
        while not follower.lag().caught_up:
            time.sleep(0.001)
        found = follower.read(0, [b"a", b"b", b"c"])
        assert {k: History.from_bytes(r).offset for k, r in zip(b"abc", found, strict=True) if r} == {
            user[0]: fence for user, fence in newest.items()
        }
        if killed:  # what a killed process leaves: the files without what is only in memory
            shutil.copytree(folder / str(number), folder / str(number + 1))
        follower.close()
        if not killed:
            (folder / str(number)).rename(folder / str(number + 1))


def test_the_lag_is_measured_against_answers_of_kafka() -> None:
    now = [1000.0]
    progress = Progress("t", lambda: now[0])
    assert progress.lag() == ReplicaLag(0, None, caught_up=False)
    progress.start({0: 5, 1: 0})
    progress.observe({0: 10, 1: 0}, 1000.0)
    assert progress.lag() == ReplicaLag(5, None, caught_up=False)
    progress.advance({0: 9})
    progress.observe({0: 20, 1: 0}, 1001.0)
    now[0] = 1002.0
    progress.advance({0: 10})
    assert progress.lag() == ReplicaLag(10, 2.0, caught_up=True), "all that Kafka had at 1000 is copied"
    progress.observe({0: 21, 1: 1}, 1003.0)
    progress.advance({0: 21})
    assert progress.lag() == ReplicaLag(1, 2.0, caught_up=True)
    progress.advance({1: 1})
    now[0] = 1004.0
    assert progress.lag() == ReplicaLag(0, 1.0, caught_up=True)
    progress.start({0: 21, 1: 1})
    assert progress.lag() == ReplicaLag(0, 1.0, caught_up=True), "an outage"
    progress.start({0: 0, 1: 1})
    assert progress.lag() == ReplicaLag(21, None, caught_up=False), "a copy that is made again"
