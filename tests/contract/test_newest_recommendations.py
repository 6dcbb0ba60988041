"""One suite for the stores of the example for consumers: SQLite, and a real Redis where `redis-server` is installed."""

from __future__ import annotations

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

from examples.newest_recommendations import RedisStore, Source, SqliteStore, UserList, open_store


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


def _list(user: str, offset: int, partition: int = 0, ts: float = 1404172800.5) -> UserList:
    return UserList(user, Source(partition, offset), ts, f'{{"offset":{offset},"ts":{ts!r},"name":"é\\u0000"}}')


def test_a_list_comes_back_as_it_was_stored(store: Store) -> None:
    assert store.keep([_list("anna", 7)], {}) == [None]
    assert store.get("anna") == _list("anna", 7).message
    assert store.get("otto") is None
    assert store.keep([], {}) == []


def test_only_newer_lists_replace_the_stored_one(store: Store) -> None:
    assert store.keep([_list("u", 5)], {}) == [None]
    assert store.keep([_list("u", 5), _list("u", 4, ts=1504172800.0)], {}) == [Source(0, 5), Source(0, 5)]
    assert store.get("u") == _list("u", 5).message
    assert store.keep([_list("u", 5, ts=1404172800.75)], {}) == [None], "answered again"
    assert store.keep([_list("u", 5)], {}) == [Source(0, 5)]
    assert store.keep([_list("u", 6), _list("u", 10), _list("u", 9)], {}) == [None, None, Source(0, 10)]
    assert store.get("u") == _list("u", 10).message, "offsets are numbers, not texts"


def test_a_user_is_removed(store: Store) -> None:
    removal = UserList("u", Source(0, 0), 0.0, None)
    assert store.keep([_list("u", 5), _list("v", 5), removal, _list("v", 4)], {}) == [None, None, None, Source(0, 5)]
    assert (store.get("u"), store.get("v")) == (None, _list("v", 5).message)
    assert store.keep([removal, _list("u", 3)], {}) == [None, None]


def test_of_two_partitions_the_later_list_counts(store: Store) -> None:
    store.keep([_list("u", 5, partition=1)], {})
    assert store.keep([_list("u", 9, partition=2, ts=1404172800.25)], {}) == [Source(1, 5)]
    assert store.keep([_list("u", 1, partition=2, ts=1404172800.75)], {}) == [None]


def test_a_stale_list_is_replaced_only_while_it_is_stored(store: Store) -> None:
    store.keep([_list("u", 999), _list("v", 999)], {})
    stale = {"u": Source(0, 999), "v": Source(0, 998)}
    assert store.keep([_list("u", 5), _list("v", 5), _list("u", 4)], stale) == [None, Source(0, 999), Source(0, 5)]


def test_offsets_are_exact(store: Store) -> None:
    highest = 2**53
    store.keep([_list("u", highest - 1)], {})
    assert store.keep([_list("u", highest)], {}) == [None]
    assert store.keep([_list("u", highest - 1)], {}) == [Source(0, highest)]


users = st.sampled_from(["a", "b"])
lists = st.lists(st.builds(_list, users, st.integers(0, 5), ts=st.sampled_from([1404172800.5, 1404172801.0])))


@given(st.lists(lists, max_size=4))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_list_remains_in_whatever_order_they_come(store: Store, batches: Sequence[list[UserList]]) -> None:
    _clear(store)
    for batch in batches:
        store.keep(batch, {})
    for user in ("a", "b"):
        expected = max(
            (one for batch in batches for one in batch if one.user == user),
            key=lambda u: (u.source, u.ts),
            default=None,
        )
        assert store.get(user) == (expected.message if expected else None)


def test_writers_at_the_same_time_leave_the_newest(places: tuple[str | None, str | None]) -> None:
    """Each of four writers stores its part of the offsets in its own order."""

    def write(first: int) -> None:
        with closing(open_store(*places)) as own:
            for offset in range(first, 200, 4) if first % 2 else range(196 + first, -1, -4):
                own.keep([_list(user, offset) for user in "abc"], {})

    with closing(open_store(*places)):
        threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with closing(open_store(*places)) as store:
        assert {store.get(user) for user in "abc"} == {_list("a", 199).message}


def test_a_batch_is_stored_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = str(tmp_path / "lists.db")
    with closing(SqliteStore(path)) as store:
        broken: Any = UserList("v", Source(0, 1), None, "")  # type: ignore[arg-type]
        with pytest.raises(Exception, match="NOT NULL"):
            store.keep([_list("u", 1), broken], {})
        assert store.get("u") is None
        assert store.keep([_list("u", 1)], {}) == [None], "the transaction has ended"


def _clear(store: Store) -> None:
    if isinstance(store, SqliteStore):
        store._db.execute("DELETE FROM recommendations")
    else:
        store._client.flushall()
