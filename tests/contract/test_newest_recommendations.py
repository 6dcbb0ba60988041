"""One suite for the stores of the example for consumers: SQLite, and a real Redis where `redis-server` is installed."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.newest_recommendations import Gone, Position, RedisStore, Row, Source, SqliteStore, UserList, open_store


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Redis of this test's own, which keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server; Debian's package is redis-server (.ci/run installs it)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    log = (folder / "redis.log").open("wb")
    process = subprocess.Popen([program, *options], stdout=log, stderr=log)
    try:
        _await_port(port, process, folder / "redis.log")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()
        log.close()


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail(f"redis-server does not run: {log.read_text()}")


Store = RedisStore | SqliteStore


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str | None, str | None]:
    """URL of a Redis, or path of a SQLite file, without any list."""
    if request.param == "sqlite":
        return None, str(tmp_path / "lists.db")
    url = request.getfixturevalue("redis_url")
    from redis import Redis

    with Redis.from_url(url) as client:
        client.flushall()
    return url, None


@pytest.fixture
def store(places: tuple[str | None, str | None]) -> Iterator[Store]:
    with closing(open_store(*places)) as opened:
        yield opened


_POSITIONS = itertools.count()


def _at(offset: int | None) -> Position:
    """Return a position in one partition; without an offset, one after all those before."""
    return Position("recommendations", 0, next(_POSITIONS) if offset is None else offset)


def _list(user: str, offset: int, partition: int = 0, ts: float = 1404172800.5, at: int | None = None) -> UserList:
    message = f'{{"offset":{offset},"ts":{ts!r},"name":"é\\u0000"}}'
    return UserList(user, _at(at), Source(partition, offset), ts, message)


def _removal(user: str, at: int | None = None) -> UserList:
    return UserList(user, _at(at), Source(0, 0), 0.0, None)


def _sources(found: Sequence[Row | None]) -> list[Source | None]:
    return [None if row is None else row.source for row in found]


def test_a_list_comes_back_as_it_was_stored(store: Store) -> None:
    assert store.keep([_list("anna", 7)], {}) == [None]
    assert store.get("anna") == _list("anna", 7).message
    assert store.get("otto") is None
    assert store.keep([], {}) == []


def test_only_newer_lists_replace_the_stored_one(store: Store) -> None:
    assert store.keep([_list("u", 5)], {}) == [None]
    repeats = store.keep([_list("u", 5), _list("u", 4, ts=1504172800.0)], {})
    assert _sources(repeats) == [Source(0, 5), Source(0, 5)]
    assert store.get("u") == _list("u", 5).message
    assert store.keep([_list("u", 5, ts=1404172800.75)], {}) == [None], "answered again"
    assert _sources(store.keep([_list("u", 5)], {})) == [Source(0, 5)]
    assert _sources(store.keep([_list("u", 6), _list("u", 10), _list("u", 9)], {})) == [None, None, Source(0, 10)]
    assert store.get("u") == _list("u", 10).message, "offsets are numbers, not texts"


def test_a_user_is_removed(store: Store) -> None:
    found = store.keep([_list("u", 5), _list("v", 5), _removal("u"), _list("v", 4)], {})
    assert _sources(found) == [None, None, None, Source(0, 5)]
    assert (store.get("u"), store.get("v")) == (None, _list("v", 5).message)
    assert store.keep([_removal("u"), _list("u", 3)], {}) == [None, None]
    assert store.get("u") == _list("u", 3).message


def test_a_removal_that_comes_late_removes_no_newer_list(store: Store) -> None:
    store.keep([_removal("u", at=8), _list("u", 5, at=9)], {})
    assert store.keep([_removal("u", at=8)], {}) == [Row(_at(9), Source(0, 5))]
    assert store.get("u") == _list("u", 5).message
    assert store.keep([_removal("u", at=10)], {}) == [None], "offsets are numbers, not texts"


def test_a_list_that_comes_late_brings_no_removed_user_back(store: Store) -> None:
    store.keep([_list("u", 5, at=7), _removal("u", at=8)], {})
    assert store.keep([_list("u", 5, at=7), _removal("u", at=8)], {}) == [Row(_at(8), Source(0, 0))] * 2
    assert store.get("u") is None
    store.keep([_list("u", 3, at=9)], {})
    assert store.keep([_list("u", 5, at=7)], {}) == [Row(_at(9), Source(0, 3))], "older than the removal between them"


def test_positions_that_are_gone_or_of_another_topic_are_not_compared(store: Store) -> None:
    store.keep([_removal("u", at=999), _removal("v", at=999), _list("w", 5, at=999)], {})
    gone = {"u": Gone(_at(999), None), "v": Gone(_at(998), None)}
    later = [_list("u", 5, at=1), _list("v", 5, at=1)]
    assert store.keep(later, gone) == [None, Row(_at(999), Source(0, 0))]
    other = _list("w", 6)._replace(position=Position("recommendations-2", 0, 1))
    assert store.keep([other, _list("w", 6, at=999)._replace(position=Position("recommendations", 1, 1))], {}) == [
        None,
        Row(other.position, other.source),
    ], "the source counts"


def test_of_two_partitions_the_later_list_counts(store: Store) -> None:
    store.keep([_list("u", 5, partition=1)], {})
    assert _sources(store.keep([_list("u", 9, partition=2, ts=1404172800.25)], {})) == [Source(1, 5)]
    assert store.keep([_list("u", 1, partition=2, ts=1404172800.75)], {}) == [None]


def test_a_source_that_is_gone_is_not_compared_while_it_is_stored(store: Store) -> None:
    store.keep([_list("u", 999), _list("v", 999)], {})
    gone = {"u": Gone(None, Source(0, 999)), "v": Gone(None, Source(0, 998))}
    found = store.keep([_list("u", 5), _list("v", 5), _list("u", 4)], gone)
    assert _sources(found) == [None, Source(0, 999), Source(0, 5)]


def test_offsets_are_exact(store: Store) -> None:
    highest = 2**53
    store.keep([_list("u", highest - 1)], {})
    assert store.keep([_list("u", highest)], {}) == [None]
    assert _sources(store.keep([_list("u", highest - 1)], {})) == [Source(0, highest)]
    store.keep([_list("v", 1, at=highest - 1)], {})
    assert store.keep([_list("v", 2, at=highest)], {}) == [None]


users = st.sampled_from(["a", "b"])
lists = st.builds(_list, users, st.integers(0, 5), ts=st.sampled_from([1404172800.5, 1404172801.0]))
messages = st.one_of(lists, st.builds(_removal, users))


@given(st.lists(messages, max_size=12), st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_repeats_change_nothing(store: Store, topic: Sequence[UserList], data: st.DataObject) -> None:
    """Read a topic in order, and after each message parts that were read before, as paused consumers do."""
    _clear(store)
    expected: dict[str, UserList] = {}
    for read, one in enumerate(topic, start=1):
        store.keep([one], {})
        before = expected.get(one.user)
        if one.message is None or before is None or (one.source, one.ts) > (before.source, before.ts):
            expected[one.user] = one
        if expected[one.user].message is None:
            del expected[one.user]
        begin = data.draw(st.integers(0, read))
        store.keep(topic[begin : data.draw(st.integers(begin, read))], {})
        assert {user: store.get(user) for user in ("a", "b")} == {
            user: expected[user].message if user in expected else None for user in ("a", "b")
        }


def test_writers_at_the_same_time_leave_the_newest(places: tuple[str | None, str | None]) -> None:
    """Each of four writers stores its part of the messages in its own order."""

    def write(first: int) -> None:
        with closing(open_store(*places)) as own:
            for offset in range(first, 200, 4) if first % 2 else range(196 + first, -1, -4):
                own.keep([_list("a", offset, at=offset), _list("b", offset, at=offset), _removal("c", offset)], {})
                own.keep([_list("c", offset, at=offset)] if offset == 199 else [], {})

    with closing(open_store(*places)):
        threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with closing(open_store(*places)) as store:
        assert {store.get(user) for user in "ab"} == {_list("a", 199).message}
        assert store.get("c") is None, "a removal at the same position was first"


def test_a_batch_is_stored_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = str(tmp_path / "lists.db")
    with closing(SqliteStore(path)) as store:
        broken: Any = UserList("v", _at(None), Source(0, 1), None, "")  # type: ignore[arg-type]
        with pytest.raises(Exception, match="NOT NULL"):
            store.keep([_list("u", 1), broken], {})
        assert store.get("u") is None
        assert store.keep([_list("u", 1)], {}) == [None], "the transaction has ended"


def _clear(store: Store) -> None:
    if isinstance(store, SqliteStore):
        store._db.execute("DELETE FROM recommendations")
    else:
        store._client.flushall()
