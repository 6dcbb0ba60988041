"""The example for consumers: which messages it reads, which lists it replaces, and when it commits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from examples.newest_recommendations import (
    Ends,
    Gone,
    Position,
    Row,
    Source,
    SqliteStore,
    UserList,
    client_settings,
    consume,
    keep_newest,
    main,
    read_list,
)
from streams.messages.recommendations import Recommendation, encode_recommendation

TS = 1404172800.5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(str(tmp_path / "lists.db"))
    yield opened
    opened.close()


def _message(user: int | str, offset: int, partition: int = 0, ts: float = TS) -> tuple[bytes, bytes]:
    found = Recommendation(user, [offset + 1], [0.5], [0], "m1", 1, partition, offset, TS, ts)
    return str(user).encode(), encode_recommendation(found)


_POSITIONS = itertools.count()


def _at(offset: int) -> Position:
    return Position("recommendations", 0, offset)


def _list(user: int | str, offset: int, partition: int = 0, ts: float = TS, at: int | None = None) -> UserList:
    """Return a list whose message is at the offset `at`, or else after all those before."""
    return read_list(_at(next(_POSITIONS) if at is None else at), *_message(user, offset, partition, ts))


def _removal(user: int, at: int | None = None) -> UserList:
    return read_list(_at(next(_POSITIONS) if at is None else at), str(user).encode(), None)


def _keep(store: SqliteStore, lists: Sequence[UserList], is_gone: Callable[[Position], bool]) -> int:
    return keep_newest(store, lists, "clicks", is_gone)


def _stored(store: SqliteStore, user: str) -> int | None:
    """Return the source offset of a user's list."""
    message = store.get(user)
    return None if message is None else int(json.loads(message)["source"]["offset"])


def _never(_position: Position) -> bool:
    return False


def test_a_message_of_the_worker_is_read() -> None:
    key, value = _message("anna", 991, partition=3)
    assert read_list(_at(4), key, value) == UserList("anna", _at(4), Source(3, 991), TS, value.decode())
    assert read_list(_at(5), *_message(42, 7)).user == "42"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        (b"", None),
        (b"42", b""),
        (b"42", b"{"),
        (b"42", b"\xff"),
        (b"42", b"[1]"),
        (b"42", b"7"),
        (b"42", b'{"user_id": 42, "ts": 1, "source": 991}'),
        (b"42", b'{"user_id": 42, "ts": 1, "source": {"partition": 0}}'),
        (b"42", b'{"user_id": 42, "ts": 1, "source": {"partition": 0, "offset": true}}'),
        (b"42", b'{"user_id": 42, "ts": 1, "source": {"partition": 0, "offset": -1}}'),
        (b"42", b'{"user_id": 42, "ts": 1, "source": {"partition": 0, "offset": 9223372036854775808}}'),
        (b"42", b'{"user_id": 42, "ts": NaN, "source": {"partition": 0, "offset": 1}}'),
        (b"42", b'{"user_id": 42, "ts": 1' + b"0" * 400 + b', "source": {"partition": 0, "offset": 1}}'),
        (b"42", b"[" * 100_000),
        (b"43", _message(42, 1)[1]),
        (None, _message(42, 1)[1]),
    ],
)
def test_other_messages_are_refused_with_one_error(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of its causes
        read_list(_at(0), key, value)


def test_a_message_without_a_value_removes_its_user(store: SqliteStore) -> None:
    assert _keep(store, [_list(1, 5), _list(2, 5), _removal(1), _list(1, 3)], _never) == 4
    assert (_stored(store, "1"), _stored(store, "2")) == (3, 5)
    removal = _removal(1)
    assert _keep(store, [removal, removal], _never) == 1
    assert _stored(store, "1") is None


def test_a_consumer_that_was_paused_undoes_nothing(store: SqliteStore) -> None:
    """It goes on with its batch after another consumer has stored that batch and more."""
    batch = [_list(1, 5), _removal(2), _list(3, 5), _removal(1)]
    _keep(store, [*batch, _list(1, 3), _list(2, 4), _removal(3)], _never)
    assert _keep(store, batch, _never) == 0
    assert (_stored(store, "1"), _stored(store, "2"), _stored(store, "3")) == (3, 4, None)


def test_positions_of_a_recreated_topic_are_not_compared(store: SqliteStore) -> None:
    """The old topic of recommendations had a thousand messages, the one that exists now has ten."""
    old = [_list(1, 5, at=900), _removal(2, at=901), _list(3, 5, at=902), _list(4, 5, at=8)]
    _keep(store, old, _never)
    new = [_list(1, 6, at=1), _list(1, 7, at=2), _list(2, 6, at=3), _removal(3, at=4), _list(4, 6, at=5)]
    assert _keep(store, new, lambda position: position == _at(position.offset) and position.offset >= 10) == 4
    assert [_stored(store, user) for user in "1234"] == [7, 6, None, 5]


def test_positions_of_another_topic_are_not_compared(store: SqliteStore) -> None:
    _keep(store, [_list(1, 5, at=900)], _never)
    position = Position("recommendations-2", 0, 1)
    assert _keep(store, [_list(1, 6)._replace(position=position)], _never) == 1


def test_repeats_and_late_messages_are_dropped(store: SqliteStore) -> None:
    assert _keep(store, [_list(1, 5), _list(1, 5), _list(1, 3), _list(2, 1)], _never) == 2
    assert _keep(store, [_list(1, 4), _list(1, 6)], _never) == 1
    assert (_stored(store, "1"), _stored(store, "2"), _stored(store, "3")) == (6, 1, None)


def _has_ten_clicks(position: Position) -> bool:
    return position.topic == "clicks" and position.offset >= 10


def test_a_late_list_does_not_replace_one_of_a_click_topic_that_was_recreated(store: SqliteStore) -> None:
    late = _list(1, 999_998)
    _keep(store, [_list(1, 999_999)], _never)
    assert _keep(store, [late], _has_ten_clicks) == 0
    assert _stored(store, "1") == 999_999


def test_a_list_of_a_topic_that_was_recreated_is_replaced_in_order(store: SqliteStore) -> None:
    """The old topic had a million clicks, the one that exists now has ten."""
    lists = [_list(1, 999_999), _list(1, 5), _list(1, 4), _list(1, 6), _list(2, 8), _list(2, 7)]
    assert _keep(store, lists, _has_ten_clicks) == 4
    assert (_stored(store, "1"), _stored(store, "2")) == (6, 8)


def test_a_list_that_another_process_has_stored_meanwhile_is_not_replaced(store: SqliteStore) -> None:
    _keep(store, [_list(1, 999_999)], _never)

    late = _list(1, 5)

    def is_gone(position: Position) -> bool:
        assert position == Position("clicks", 0, 999_999)
        store.keep([_list(1, 9)], {"1": Gone(None, Source(0, 999_999))})
        return True

    assert _keep(store, [late], is_gone) == 0
    assert _stored(store, "1") == 9


def test_kafka_is_not_asked_about_repeats(store: SqliteStore) -> None:
    repeated = _list(1, 5)
    _keep(store, [repeated], _never)
    _keep(store, [repeated], lambda _position: pytest.fail("asked"))


class FakeMessage:
    def __init__(self, offset: int, key: bytes | None, value: bytes | None, error: KafkaError | None = None) -> None:
        self._offset, self._key, self._value, self._error = offset, key, value, error

    def error(self) -> KafkaError | None:
        return self._error

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value


class FakeConsumer:
    """Delivers messages from the committed offset on, in batches of two."""

    def __init__(self, messages: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        self.messages = [FakeMessage(offset, *message) for offset, message in enumerate(messages)]
        self.errors: list[KafkaError] = []
        self.refuses_commits = False
        self.committed = self.position = 0
        self.ends: dict[int, int] = {}

    def subscribe(self, topics: list[str]) -> None:
        assert topics == ["recommendations"]
        self.position = self.committed

    def consume(self, _most: int, timeout: float) -> list[FakeMessage]:
        if self.errors:
            return [FakeMessage(-1, None, None, self.errors.pop())]
        batch = self.messages[self.position : self.position + 2]
        self.position += len(batch)
        return batch

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        if self.refuses_commits:
            raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
        self.committed = offsets[0].offset

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        if partition.partition not in self.ends:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return 0, self.ends[partition.partition]

    def run(self, store: Any, batches: int) -> None:
        remaining = iter(range(batches))
        consume(self, "recommendations", "clicks", store, lambda: next(remaining, None) is None)  # type: ignore[arg-type]


def test_offsets_are_committed_after_the_lists_are_stored(store: SqliteStore) -> None:
    consumer = FakeConsumer([_message(1, 1), _message(2, 2), _message(1, 3), _message(2, 4)])
    consumer.run(store, batches=2)
    assert (consumer.committed, _stored(store, "1"), _stored(store, "2")) == (4, 3, 4)


def test_nothing_is_committed_if_the_store_fails() -> None:
    class Full:
        def keep(self, *_: object) -> list[Row | None]:
            raise OSError("no space left")

    consumer = FakeConsumer([_message(1, 1)])
    with pytest.raises(OSError, match="no space left"):
        consumer.run(Full(), batches=1)
    assert consumer.committed == 0


def test_a_commit_that_is_refused_costs_only_repeats(store: SqliteStore) -> None:
    consumer = FakeConsumer([_message(1, 1), _message(1, 5), _message(1, 3)])
    consumer.refuses_commits = True
    consumer.run(store, batches=2)
    consumer.refuses_commits = False
    consumer.run(store, batches=2)
    assert (consumer.committed, _stored(store, "1")) == (3, 5)


def test_messages_of_other_programs_do_not_stop_it(store: SqliteStore) -> None:
    consumer = FakeConsumer([(None, None), (b"1", b"hello"), _message(1, 5)])
    consumer.run(store, batches=2)
    assert (consumer.committed, _stored(store, "1")) == (3, 5)


def test_it_goes_on_after_errors_that_librdkafka_recovers_from(store: SqliteStore) -> None:
    consumer = FakeConsumer([_message(1, 5)])
    consumer.errors = [KafkaError(KafkaError._ALL_BROKERS_DOWN), KafkaError(KafkaError._MAX_POLL_EXCEEDED)]
    consumer.run(store, batches=3)
    assert _stored(store, "1") == 5
    consumer.errors = [KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)]
    with pytest.raises(KafkaException):
        consumer.run(store, batches=1)


def test_positions_at_or_beyond_the_end_of_their_topic_are_gone() -> None:
    consumer: Any = FakeConsumer([])
    consumer.ends = {0: 10}
    ends = Ends(consumer)
    assert not ends.is_gone(Position("clicks", 0, 9))
    assert ends.is_gone(Position("clicks", 0, 10))
    assert not ends.is_gone(Position("clicks", 7, 10)), "Kafka does not tell"


def test_a_list_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "lists.db")
    written = SqliteStore(path)
    _keep(written, [_list(42, 5)], _never)
    written.close()
    for user, status, text in (("42", 0, '"offset":5'), ("43", 1, "there is no list")):
        with pytest.raises(SystemExit) as caught:
            main(["--sqlite", path, "--user", user])
        assert caught.value.code == status
        assert text in capsys.readouterr().out


def test_settings_of_the_client_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "client.properties"
    path.write_text("# login\nsasl.username = shop\n\nsasl.password=a=b\n")
    assert client_settings(str(path)) == {"sasl.username": "shop", "sasl.password": "a=b"}
    assert client_settings(None) == {}
