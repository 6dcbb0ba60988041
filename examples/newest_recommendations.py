"""Keep the newest recommendations of each user in Redis or SQLite.

An example to copy: it imports nothing of Mindstream, and is one file, however long.

    pip install confluent-kafka redis
    python newest_recommendations.py --kafka localhost:9092 --redis redis://localhost:6379/0
    python newest_recommendations.py --kafka localhost:9092 --sqlite lists.db
    python newest_recommendations.py --sqlite lists.db --user 42     # what the shop reads

Delivery is at least once: offsets are committed after the lists are stored, so a process that is killed stores some
lists again. Each message names its *source*, partition and offset of the newest click that it answers. A list replaces
the stored one if its source has a higher offset, or the same offset and a later `ts`: the user was answered again, for
example because an item got its vector. All others are repeats, or late messages of a worker or consumer that was
paused, and are dropped. A message without a value removes its user. The store compares and writes in one atomic step,
so it does not matter who writes last.

If the click topic is deleted and created again, its offsets begin at 0, below those stored. A stored source at or
beyond the end of its partition of clicks cannot be a click of the topic that exists now, so its list is replaced. A
user whose stored offset the new topic had reached before the first new list came keeps the old list until a click
above it comes. Where that will not do, delete the stored lists and set another --group, which reads the topic from its
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


class UserList(NamedTuple):
    """One user's recommendations.

    Attributes:
        user: the user id as text: 42 and "42" are one user.
        source: the newest click that it answers.
        ts: when it was computed, in seconds since 1970.
        message: the whole message, in JSON; None removes the user.
    """

    user: str
    source: Source
    ts: float
    message: str | None


class Store(Protocol):
    """Keeps the newest list of each user."""

    def keep(self, lists: Sequence[UserList], stale: Mapping[str, Source]) -> list[Source | None]:
        """Store each list unless the stored one of its user is at least as new; all or none survive a crash.

        Args:
            lists: to store, in the order of the topic.
            stale: user → source of a stored list that any other list replaces.

        Returns:
            For each list None if it was stored, or its user removed; otherwise the source of the list that is stored.
        """
        ...

    def get(self, user: str) -> str | None:
        """Return the message that is stored for a user."""
        ...


class SqliteStore:
    """A table in a file. Other processes may read and write it at the same time."""

    #: Users' clicks are in one partition; lists of two partitions are of two topics, and the later one counts.
    _KEEP = """
        INSERT INTO recommendations (user, source_partition, source_offset, ts, message) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (user) DO UPDATE SET source_partition = excluded.source_partition,
            source_offset = excluded.source_offset, ts = excluded.ts, message = excluded.message
        WHERE (source_partition = excluded.source_partition
               AND (source_offset, ts) < (excluded.source_offset, excluded.ts))
           OR (source_partition <> excluded.source_partition AND ts < excluded.ts)
           OR (source_partition = ? AND source_offset = ?)
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS recommendations (user TEXT PRIMARY KEY, source_partition INTEGER NOT NULL, "
            "source_offset INTEGER NOT NULL, ts REAL NOT NULL, message TEXT NOT NULL) WITHOUT ROWID"
        )

    def keep(self, lists: Sequence[UserList], stale: Mapping[str, Source]) -> list[Source | None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            found = [self._keep(one, stale.get(one.user)) for one in lists]
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return found

    def get(self, user: str) -> str | None:
        row = self._db.execute("SELECT message FROM recommendations WHERE user = ?", (user,)).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        self._db.close()

    def _keep(self, one: UserList, stale: Source | None) -> Source | None:
        if one.message is None:
            self._db.execute("DELETE FROM recommendations WHERE user = ?", (one.user,))
            return None
        values = (one.user, *one.source, one.ts, one.message, *(stale or (None, None)))
        if self._db.execute(self._KEEP, values).rowcount:
            return None
        query = "SELECT source_partition, source_offset FROM recommendations WHERE user = ?"
        return Source(*self._db.execute(query, (one.user,)).fetchone())


class RedisStore:
    """A hash for each user, `recommendations:USER`, with the fields message, partition, offset and ts.

    A shop reads `HGET recommendations:42 message`. Redis keeps what it has acknowledged through a crash of its own only
    with `appendonly yes` and `appendfsync always`.
    """

    #: Runs as one step. Numbers in Lua are doubles: exact for offsets up to 9,007,199,254,740,992.
    _KEEP = """
        local stored = redis.call('HMGET', KEYS[1], 'partition', 'offset', 'ts')
        if stored[1] and not (stored[1] == ARGV[5] and stored[2] == ARGV[6]) then
            local offset, ts = tonumber(ARGV[2]), tonumber(ARGV[3])
            local same = stored[1] == ARGV[1]
            local higher = same and offset > tonumber(stored[2])
            local later = (not same or offset == tonumber(stored[2])) and ts > tonumber(stored[3])
            if not (higher or later) then return {stored[1], stored[2]} end
        end
        redis.call('HSET', KEYS[1], 'partition', ARGV[1], 'offset', ARGV[2], 'ts', ARGV[3], 'message', ARGV[4])
        return false
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._script = client.register_script(self._KEEP)

    def keep(self, lists: Sequence[UserList], stale: Mapping[str, Source]) -> list[Source | None]:
        pipeline = self._client.pipeline(transaction=True)  # one round trip
        for one in lists:
            if one.message is None:
                pipeline.delete(self._key(one.user))
                continue
            arguments = [*one.source, repr(one.ts), one.message, *(stale.get(one.user) or ("", ""))]
            self._script(keys=[self._key(one.user)], args=arguments, client=pipeline)
        # The answer to a removal is a number.
        return [Source(*map(int, stored)) if isinstance(stored, list) else None for stored in pipeline.execute()]

    def get(self, user: str) -> str | None:
        message: Any = self._client.hget(self._key(user), "message")
        return None if message is None else str(message, "utf-8")

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _key(user: str) -> str:
        return f"recommendations:{user}"


def read_list(key: bytes | None, value: bytes | None) -> UserList:
    """Read a message of the topic `recommendations`; properties that are not needed here are not checked.

    Raises:
        ValueError: it is none.
    """
    try:
        user = (key or b"").decode()
        if value is None and user:
            return UserList(user, Source(0, 0), 0.0, None)
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
    return UserList(user, source, float(ts), message)


def keep_newest(store: Store, lists: Sequence[UserList], is_gone: Callable[[Source], bool]) -> int:
    """Store the lists that are newer than the stored ones.

    Args:
        store: where they are kept.
        lists: in the order of the topic.
        is_gone: returns True if a source cannot be a click of the topic that exists now.

    Returns:
        The number of lists that were stored.
    """
    found = store.keep(lists, {})
    dropped = [(one, stored) for one, stored in zip(lists, found, strict=True) if stored is not None]
    # A source that is gone stays so; and if another process has replaced the list meanwhile, `stale` names none.
    again = [(one, stored) for one, stored in dropped if one.source != stored and is_gone(stored)]
    if not again:
        return len(lists) - len(dropped)
    stale = {one.user: stored for one, stored in again}
    LOG.warning("the click topic was recreated: older lists of %d users are replaced", len(stale))
    return len(lists) - len(dropped) + store.keep([one for one, _ in again], stale).count(None)


class ClickTopic:
    """Tells which sources cannot be clicks of the topic as it is now. Use a new one for each batch: ends grow."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._ends: dict[int, int | None] = {}

    def is_gone(self, source: Source) -> bool:
        if source.partition not in self._ends:
            self._ends[source.partition] = self._end(source.partition)
        end = self._ends[source.partition]
        return end is not None and source.offset >= end

    def _end(self, partition: int) -> int | None:
        """Return the offset after the newest click of a partition; None if Kafka does not tell."""
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=ANSWER_S)
        except KafkaException as error:  # without the right Describe, for example, no recreated topic is recognized
            LOG.warning("the end of %s [%d] is unknown: %s", self._topic, partition, error.args[0])
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
                    lists.append(read_list(_bytes(message.key()), _bytes(message.value())))
                except ValueError as fault:
                    LOG.warning("%s [%d] at offset %d is no recommendation: %s", topic, partition, offset, fault)
        if not offsets:
            continue
        stored = keep_newest(store, lists, ClickTopic(consumer, clicks).is_gone)
        try:
            consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in offsets.items()], asynchronous=False)
        except KafkaException as failure:  # the partitions were revoked, or Kafka is unavailable: costs only repeats
            LOG.warning("not committed, the messages will be read again: %s", failure.args[0])
        LOG.info("%d messages: %d lists stored, %d dropped", len(lists), stored, len(lists) - stored)


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
