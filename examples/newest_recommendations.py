"""Keep the newest recommendations of each user in Redis or SQLite.

An example to copy: it imports nothing of Mindstream, and is one file, however long.

    pip install confluent-kafka redis
    python newest_recommendations.py --kafka localhost:9092 --redis redis://localhost:6379/0
    python newest_recommendations.py --kafka localhost:9092 --sqlite lists.db
    python newest_recommendations.py --sqlite lists.db --user 42     # what the shop reads

Delivery is at least once: offsets are committed after the lists are stored, so a process that is killed stores some
lists again. Each message names its *source*, partition and offset of the newest click that it answers. A list replaces
the stored one if its source has a higher offset, or the same offset and a later `ts`: the user was answered again, for
example because an item got its vector. All others are repeats, or late messages of a worker that was paused, and are
dropped. A message without a value removes its user, and leaves a *tombstone*: a row with the user's id and no list.

Each row has the *position* of the message that wrote it: topic, partition and offset. A list or a removal is written
only if its position is after the stored one. So a consumer that was paused past its session, and goes on with messages
that another one has stored since, changes nothing: it neither removes a newer list nor brings a removed user back. The
store compares and writes in one atomic step. A tombstone may be deleted when no consumer is left that was paused before
it was written.

If the click topic is deleted and created again, its offsets begin at 0, below those stored. A stored source at or
beyond the end of its partition of clicks cannot be a click of the topic that exists now, so its list is replaced. The
same holds for stored positions and the topic of recommendations; positions of another topic are not compared. A user
whose stored offset the new topic had reached before the first new list came keeps the old list until an offset above
it comes. Where that will not do, delete the stored lists and set another --group, which reads the topic from its
beginning.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

if TYPE_CHECKING:
    from redis import Redis

LOG = logging.getLogger("newest_recommendations")
#: Most messages that are stored together, seconds to wait for them, and seconds to wait for an answer of Kafka.
BATCH, WAIT_S, ANSWER_S = 500, 1.0, 10.0


class Source(NamedTuple):
    """The newest click that a list answers: its partition and offset on the topic of clicks."""

    partition: int
    offset: int


class Position(NamedTuple):
    """A message's topic, partition and offset."""

    topic: str
    partition: int
    offset: int


class UserList(NamedTuple):
    """One user's recommendations, or the removal of the user.

    Attributes:
        user: the user id as text: 42 and "42" are one user.
        position: of the message.
        source: the newest click that it answers; (0, 0) in a removal.
        ts: when it was computed, in seconds since 1970; 0 in a removal.
        message: the whole message, in JSON; None removes the user.
    """

    user: str
    position: Position
    source: Source
    ts: float
    message: str | None


class Row(NamedTuple):
    """Position and source of what is stored of a user."""

    position: Position
    source: Source


class Gone(NamedTuple):
    """Position, source, or both, of a row that are of a topic which exists no more: they are not compared."""

    position: Position | None
    source: Source | None


class Store(Protocol):
    """Keeps the newest list of each user."""

    def keep(self, lists: Sequence[UserList], gone: Mapping[str, Gone]) -> list[Row | None]:
        """Store each list or removal unless the user's row is at least as new; all or none survive a crash.

        Args:
            lists: to store, in the order of the topic.
            gone: user → what is not compared if the user's row still has it.

        Returns:
            For each list None if it was stored, or its user removed; otherwise the row that is stored.
        """
        ...

    def get(self, user: str) -> str | None:
        """Return the message that is stored for a user."""
        ...


class SqliteStore:
    """A table in a file. Other processes may read and write it at the same time."""

    #: Users' clicks are in one partition; lists of two partitions are of two topics, and the later one counts.
    _KEEP = """
        INSERT INTO recommendations VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (user) DO UPDATE SET topic = excluded.topic, partition = excluded.partition,
            offset = excluded.offset, source_partition = excluded.source_partition,
            source_offset = excluded.source_offset, ts = excluded.ts, message = excluded.message
        WHERE ((topic, partition) <> (excluded.topic, excluded.partition)
               OR offset < excluded.offset
               OR (topic, partition, offset) = (?, ?, ?))
          AND (message IS NULL OR excluded.message IS NULL
               OR (source_partition = excluded.source_partition
                   AND (source_offset, ts) < (excluded.source_offset, excluded.ts))
               OR (source_partition <> excluded.source_partition AND ts < excluded.ts)
               OR (source_partition, source_offset) = (?, ?))
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS recommendations (user TEXT PRIMARY KEY, topic TEXT NOT NULL, "
            "partition INTEGER NOT NULL, offset INTEGER NOT NULL, source_partition INTEGER NOT NULL, "
            "source_offset INTEGER NOT NULL, ts REAL NOT NULL, message TEXT) WITHOUT ROWID"  # no message: a tombstone
        )

    def keep(self, lists: Sequence[UserList], gone: Mapping[str, Gone]) -> list[Row | None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            found = [self._keep(one, gone.get(one.user, Gone(None, None))) for one in lists]
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return found

    def get(self, user: str) -> str | None:
        row = self._db.execute("SELECT message FROM recommendations WHERE user = ?", (user,)).fetchone()
        return None if row is None or row[0] is None else str(row[0])

    def close(self) -> None:
        self._db.close()

    def _keep(self, one: UserList, gone: Gone) -> Row | None:
        values = (one.user, *one.position, *one.source, one.ts, one.message)
        ignored = (*(gone.position or [None] * 3), *(gone.source or [None] * 2))
        if self._db.execute(self._KEEP, values + ignored).rowcount:
            return None
        query = "SELECT topic, partition, offset, source_partition, source_offset FROM recommendations WHERE user = ?"
        found = self._db.execute(query, (one.user,)).fetchone()
        return Row(Position(*found[:3]), Source(*found[3:]))


class RedisStore:
    """A hash for each user, `recommendations:USER`, with the fields that the table of `SqliteStore` has.

    A shop reads `HGET recommendations:42 message`; a tombstone has no message. Redis keeps what it has acknowledged
    through a crash of its own only with `appendonly yes` and `appendfsync always`.
    """

    #: Runs as one step. Numbers in Lua are doubles: exact for offsets up to 9,007,199,254,740,992.
    _KEEP = """
        local topic, partition, offset, source_partition, source_offset, ts, message = unpack(ARGV, 1, 7)
        local old = redis.call('HMGET', KEYS[1], 'topic', 'partition', 'offset', 'source_partition', 'source_offset',
                               'ts', 'message')
        if old[1] then
            local other = old[1] ~= topic or old[2] ~= partition
            local gone = old[1] == ARGV[8] and old[2] == ARGV[9] and old[3] == ARGV[10]
            local after = other or gone or tonumber(offset) > tonumber(old[3])
            local same, above = old[4] == source_partition, tonumber(source_offset) - tonumber(old[5])
            local newer = not old[7] or message == '' or (old[4] == ARGV[11] and old[5] == ARGV[12])
                or (same and above > 0) or ((not same or above == 0) and tonumber(ts) > tonumber(old[6]))
            if not (after and newer) then return {old[1], old[2], old[3], old[4], old[5]} end
        end
        redis.call('HSET', KEYS[1], 'topic', topic, 'partition', partition, 'offset', offset,
                   'source_partition', source_partition, 'source_offset', source_offset, 'ts', ts, 'message', message)
        if message == '' then redis.call('HDEL', KEYS[1], 'message') end
        return false
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._script = client.register_script(self._KEEP)

    def keep(self, lists: Sequence[UserList], gone: Mapping[str, Gone]) -> list[Row | None]:
        pipeline = self._client.pipeline(transaction=True)  # one round trip
        for one in lists:
            position, source = gone.get(one.user, Gone(None, None))
            arguments: list[str | int] = [*one.position, *one.source, repr(one.ts), one.message or ""]
            arguments += [*(position or [""] * 3), *(source or [""] * 2)]
            self._script(keys=[self._key(one.user)], args=arguments, client=pipeline)
        return [None if found is None else self._row(*found) for found in pipeline.execute()]

    def get(self, user: str) -> str | None:
        message: Any = self._client.hget(self._key(user), "message")
        return None if message is None else str(message, "utf-8")

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _row(topic: bytes, *numbers: bytes) -> Row:
        partition, offset, source_partition, source_offset = map(int, numbers)
        return Row(Position(topic.decode(), partition, offset), Source(source_partition, source_offset))

    @staticmethod
    def _key(user: str) -> str:
        return f"recommendations:{user}"


def read_list(position: Position, key: bytes | None, value: bytes | None) -> UserList:
    """Read a message of the topic `recommendations`; properties that are not needed here are not checked.

    Raises:
        ValueError: it is none.
    """
    try:
        user = (key or b"").decode()
        if value is None and user:
            return UserList(user, position, Source(0, 0), 0.0, None)
        message = (value or b"").decode()
        fields = json.loads(message)
        source = Source(fields["source"]["partition"], fields["source"]["offset"])
        ts = fields["ts"]
        if user != str(fields["user_id"]):
            raise ValueError("the key is not the text of user_id")
        if type(source.partition) is not int or type(source.offset) is not int or type(ts) not in (int, float):
            raise ValueError("source and ts are not numbers")
        if not (0 <= source.partition < 2**31 and 0 <= source.offset < 2**63 and 0 <= ts < 10**10):
            raise ValueError("source or ts is out of range")
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a property is missing, or has another type: {error!r}") from None
    return UserList(user, position, source, float(ts), message)


def keep_newest(store: Store, lists: Sequence[UserList], clicks: str, is_gone: Callable[[Position], bool]) -> int:
    """Store the lists and removals that are newer than what is stored.

    Args:
        store: where they are kept.
        lists: in the order of the topic.
        clicks: topic that the sources are of.
        is_gone: returns True if a position cannot be one of the topic that exists now.

    Returns:
        The number of lists that were stored, and users removed.
    """

    def gone(one: UserList, row: Row) -> Gone:
        """Return what cannot be compared; of repeats, which are frequent, without a question to Kafka."""
        is_before = one.position[:2] == row.position[:2] and one.position.offset < row.position.offset
        position = is_before and is_gone(row.position)
        source = one.source != row.source and is_gone(Position(clicks, *row.source))
        return Gone(row.position if position else None, row.source if source else None)

    found = store.keep(lists, {})
    dropped = [(one, gone(one, row)) for one, row in zip(lists, found, strict=True) if row is not None]
    # What is gone stays so; and if another process has replaced the row meanwhile, `gone` names nothing of it.
    again = [(one, gone) for one, gone in dropped if any(gone)]
    if not again:
        return len(lists) - len(dropped)
    LOG.warning("a topic was recreated: older lists of %d users are replaced", len({one.user for one, _ in again}))
    stored = store.keep([one for one, _ in again], {one.user: gone for one, gone in again})
    return len(lists) - len(dropped) + stored.count(None)


class Ends:
    """Tells which positions cannot be in the topics as they are now. Use a new one for each batch: topics grow."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._ends: dict[tuple[str, int], int | None] = {}

    def is_gone(self, position: Position) -> bool:
        topic, partition, offset = position
        if (topic, partition) not in self._ends:
            self._ends[topic, partition] = self._end(topic, partition)
        end = self._ends[topic, partition]
        return end is not None and offset >= end

    def _end(self, topic: str, partition: int) -> int | None:
        """Return the offset after the newest message of a partition; None if Kafka does not tell."""
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)
        except KafkaException as error:  # without the right Describe, for example, no recreated topic is recognized
            LOG.warning("the end of %s [%d] is unknown: %s", topic, partition, error.args[0])
            return None
        return None if found is None else int(found[1])


def consume(
    consumer: Consumer, topic: str, clicks: str, store: Store, is_stopped: Callable[[], bool] = lambda: False
) -> None:
    """Store the newest lists until `is_stopped` returns True; commit after each batch.

    Raises:
        KafkaException: Kafka refuses this client, or there is no such topic.
        sqlite3.Error, redis.RedisError: the store failed. Nothing was committed: start again.
    """
    consumer.subscribe([topic])
    while not is_stopped():
        lists, offsets = [], dict[int, int]()
        for message in consumer.consume(BATCH, timeout=WAIT_S):
            partition, offset = message.partition(), message.offset()
            if (error := message.error()) is not None:
                _check(error)
            elif partition is not None and offset is not None:
                offsets[partition] = offset + 1
                try:
                    position = Position(topic, partition, offset)
                    lists.append(read_list(position, _bytes(message.key()), _bytes(message.value())))
                except ValueError as fault:
                    LOG.warning("%s [%d] at offset %d is no recommendation: %s", topic, partition, offset, fault)
        if not offsets:
            continue
        stored = keep_newest(store, lists, clicks, Ends(consumer).is_gone)
        try:
            consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in offsets.items()], asynchronous=False)
        except KafkaException as failure:  # the partitions were revoked, or Kafka is unavailable: costs only repeats
            LOG.warning("not committed, the messages will be read again: %s", failure.args[0])
        LOG.info("%d messages: %d stored, %d dropped", len(lists), stored, len(lists) - stored)


def _check(error: KafkaError) -> None:
    """Raise on errors that a retry cannot fix; librdkafka recovers from the others by itself."""
    refused = {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
    if error.fatal() or error.code() in refused:
        raise KafkaException(error)
    LOG.warning("%s", error)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def open_store(redis_url: str | None, sqlite_path: str | None) -> RedisStore | SqliteStore:
    if redis_url is None:
        return SqliteStore(sqlite_path or "")
    from redis import Redis

    return RedisStore(Redis.from_url(redis_url, socket_timeout=ANSWER_S))


def client_settings(path: str | None) -> dict[str, Any]:
    """Read librdkafka's settings, `name=value` lines, from a file: a password does not belong on a command line."""
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - one import less in an example
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kafka", default="localhost:9092", help="bootstrap servers (default: %(default)s)")
    parser.add_argument("--kafka-config", metavar="FILE", help="further settings of librdkafka, such as sasl.username")
    parser.add_argument("--topic", default="recommendations", help="topic to read (default: %(default)s)")
    parser.add_argument("--clicks", default="clicks", help="topic that sources are of (default: %(default)s)")
    parser.add_argument("--group", default="newest-recommendations", help="consumer group (default: %(default)s)")
    stores = parser.add_mutually_exclusive_group(required=True)
    stores.add_argument("--redis", metavar="URL", help="keep the lists in Redis, as redis://localhost:6379/0")
    stores.add_argument("--sqlite", metavar="FILE", help="keep the lists in this file")
    parser.add_argument("--user", help="print the stored list of this user, and exit")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with closing(open_store(given.redis, given.sqlite)) as store:
        if given.user is not None:
            message = store.get(given.user)
            print(message if message is not None else "there is no list of this user")
            sys.exit(0 if message is not None else 1)
        settings = {
            "bootstrap.servers": given.kafka,
            "group.id": given.group,
            "auto.offset.reset": "earliest",  # the first start reads the whole topic
            "enable.auto.commit": False,  # committed below, after the lists were stored
        }
        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda signum, _frame: stopped.append(signum))
        consumer = Consumer(settings | client_settings(given.kafka_config))
        try:
            consume(consumer, given.topic, given.clicks, store, lambda: bool(stopped))
        finally:
            consumer.close()


if __name__ == "__main__":
    main()
