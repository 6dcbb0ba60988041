"""A follower: keeps a local copy of all partitions of a compacted topic, which other threads read.

It joins no consumer group and writes nothing to Kafka, so any number of them may follow a topic. A thread reads the
topic from the offset that the copy has reached, and keeps the newer one of two records of a user, as the owner of the
partition does (`streams.state.store`). Whatever happens to Kafka or to the disk, the thread retries, and what has been
copied can be read. It ends only if the name of the topic stands for another one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from configs.errors import TransientError
from streams.clock import boot_clock
from streams.errors import RestartRequired
from streams.kafka.partition_reader import PartitionChunk
from streams.kafka.topics import TopicIdentities
from streams.ports import ReplicaLag
from streams.state.changelog import CompactedTopic
from streams.state.replica import first_unread_offsets
from streams.state.shared_store import SharedStores

_LOG = logging.getLogger("mindstream.replica")

#: Most messages applied at a time. The interpreter runs nothing else while a chunk is written: a millisecond.
_MAX_MESSAGES = 250
#: Seconds to wait for a message.
_WAIT_S = 0.1
#: Seconds between two queries of the ends of the partitions, and of the topic that the name stands for.
_ENDS_INTERVAL_S, _IDENTITY_INTERVAL_S = 1.0, 10.0
#: Seconds between two log lines while the copy catches up, and between two log lines about the same fault.
_LOG_INTERVAL_S, _FAULT_INTERVAL_S = 10.0, 300.0
#: Seconds between two notes on the disk of the time until which the copy is complete.
_NOTE_INTERVAL_S = 60.0
#: Seconds that `close` waits for the thread. A request to a broker that is gone takes up to 10.
_JOIN_S = 1.0
#: Seconds until a retry after a fault.
_RETRY_S = 5.0
_DAY_S = 86_400.0


class Progress:
    """Distance of a copy from the end of its topic. One thread writes it, any thread reads it.

    Args:
        topic: name of the topic, for the log.
        clock: seconds; see `streams.clock.boot_clock`.

    Attributes:
        complete_until: the copy holds everything that Kafka had at this time of the clock; None = not known.
    """

    def __init__(self, topic: str, clock: Callable[[], float] = boot_clock) -> None:
        self.complete_until: float | None = None
        self._topic = topic
        self._clock = clock
        self._positions: Mapping[int, int] = {}
        self._ends: Mapping[int, int] = {}
        self._goal: tuple[Mapping[int, int], float] | None = None

    def start(self, positions: Mapping[int, int]) -> None:
        """Continue at these offsets to read next, by partition; if one is lower than before, the copy is incomplete."""
        if any(positions[p] < position for p, position in self._positions.items()):
            self.complete_until = None
        self._positions = positions
        self._goal = None

    def forget(self) -> None:
        """Note that the copy may lack messages that it had."""
        self.complete_until = None
        self._goal = None

    def observe(self, ends: Mapping[int, int], asked_at: float) -> None:
        """Note the end offsets of the partitions, as queried at this time."""
        self._ends = ends
        if self._goal is None:  # otherwise a copy that needs longer than until the next answer would never reach one
            self._goal = ends, asked_at
        self._check_goal()

    def advance(self, positions: Mapping[int, int]) -> None:
        """Note new offsets to read next."""
        self._positions = {**self._positions, **positions}
        self._check_goal()

    def lag(self) -> ReplicaLag:
        """Return the lag. May be called from any thread."""
        until, positions = self.complete_until, self._positions
        messages = sum(max(0, end - positions.get(p, 0)) for p, end in self._ends.items())
        age_s = None if until is None else max(0.0, self._clock() - until)
        return ReplicaLag(messages, age_s, until is not None)

    def _check_goal(self) -> None:
        if self._goal is not None and all(self._positions.get(p, 0) >= end for p, end in self._goal[0].items()):
            if self.complete_until is None:
                _LOG.info("the local copy of %s has caught up", self._topic)
            self.complete_until, self._goal = self._goal[1], None


class Follower:
    """Copies a topic into local stores, in a thread that ends with the process, or with `close`.

    Args:
        topic: to follow.
        stores: local copies of its partitions; nothing else uses them.
        identities: what the name of the topic stands for.
        pack: makes the record to store from a message's key and value, and the time at which Kafka received it; bytes
            without a fence if the message is invalid.
        on_changed: called from the thread if the name stands for another topic now, the topic got more partitions, or
            the copy may have missed removals. The thread has ended then, and the process must end.
        removals_kept_s: seconds for which Kafka keeps the message that removes a key. A copy that was not followed for
            longer is made again: it may have missed some.
        count_foreign: called with the number of messages that were ignored, because they are no records.
        retry_s: seconds until a retry after a fault.

    Raises:
        FatalError: the stores are a copy of another topic, or cannot be used; Kafka refuses the request.
        TransientError: Kafka is unavailable.
        RestartRequired: the disk is full, or another process uses the stores.
    """

    def __init__(
        self,
        topic: CompactedTopic,
        stores: SharedStores,
        identities: TopicIdentities,
        pack: Callable[[bytes | None, bytes, float], bytes],
        on_changed: Callable[[RestartRequired], object],
        removals_kept_s: float,
        count_foreign: Callable[[int], object] = lambda _: None,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._topic = topic
        self._stores = stores
        self._identities = identities
        self._pack = pack
        self._on_changed = on_changed
        self._count_foreign = count_foreign
        self._retry_s = retry_s
        self._identity = identities.now()[topic.topic]
        self._progress = Progress(topic.topic)
        self._logged_foreign = False
        self._noted = 0.0
        self._removals_kept_s = removals_kept_s
        self._open()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {topic.topic}", daemon=True)
        self._thread.start()

    @property
    def partitions(self) -> range:
        """The partitions of the topic."""
        return range(self._identity.partitions)

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one record, or None, for each key. May be called from any thread.

        Raises:
            TransientError: the copy of this partition is damaged, and is being made again.
        """
        return self._stores.peek(partition, keys)

    def lag(self) -> ReplicaLag:
        """Return how far the copy is behind. May be called from any thread."""
        readable = self._stores.are_open(self.partitions)  # first: what is opened next may be empty
        lag = self._progress.lag()
        return lag if readable else ReplicaLag(lag.messages, None, caught_up=False)

    def close(self) -> None:
        """Stop following permanently, and close the stores.

        If the thread waits for Kafka, they stay open: the process ends as if it was killed, which loses nothing.
        """
        self._closed.set()
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self._stores.close()

    def _open(self) -> None:
        """Open the stores, so that they can be read while Kafka is unavailable."""
        self._stores.bind(self._identity.id)
        copied = any(self._open_databases().values())
        age_s = self._stores.age_s()
        if copied and (age_s is None or age_s > self._removals_kept_s):
            why = "for an unknown time (was the clock set back?)" if age_s is None else f"for {age_s / _DAY_S:.1f} days"
            _LOG.warning(
                "%s was not followed %s, and Kafka keeps removals for %.1f (delete.retention.ms): the local copy is "
                "made again",
                self._topic.topic,
                why,
                self._removals_kept_s / _DAY_S,
            )
            for partition in self.partitions:
                self._stores.clear(partition)
            self._open_databases()
            age_s = None
        self._note(boot_clock() - (age_s if copied and age_s is not None else 0.0))

    def _note(self, complete_until: float) -> None:
        """Note until when the copy is complete, for this process and the next one."""
        self._noted = complete_until
        self._stores.set_age(boot_clock() - complete_until)

    def _is_outdated(self) -> bool:
        """Return whether Kafka may have removed messages that remove a key before this copy read them."""
        return boot_clock() - self._noted > self._removals_kept_s

    def _open_databases(self) -> dict[int, int]:
        """Open all databases, also those that have failed; return partition → offset to read next."""
        self._stores.own(self.partitions)
        if not self._stores.are_open(self.partitions):
            self._progress.forget()  # before one is opened, which may be empty
        positions = {p: self._stores.offset(p) + 1 for p in self.partitions}
        self._progress.start(positions)
        return positions

    def _run(self) -> None:
        logged, logged_at = "", 0.0
        while not self._closed.is_set():
            try:
                self._follow()
            except (_TopicChangedError, _OutdatedError) as error:
                self._on_changed(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, what has been copied can be read
                if str(error) != logged or time.monotonic() - logged_at > _FAULT_INTERVAL_S:
                    logged, logged_at = str(error), time.monotonic()
                    _LOG.warning("topic %s is not followed: %s; retrying", self._topic.topic, error)
                self._closed.wait(self._retry_s)

    def _follow(self) -> None:
        """Follow until closed, from where the stores are."""
        self._open_databases()
        self._check_identity()
        first_unread_offsets(self._stores, self._ends())  # empties stores that are ahead of the topic
        tasks = (
            _Periodic(_ENDS_INTERVAL_S, self._observe_ends),
            _Periodic(_IDENTITY_INTERVAL_S, self._check_identity),
            _Periodic(_NOTE_INTERVAL_S, self._note_progress),
            _Periodic(_LOG_INTERVAL_S, self._log_lag),
        )
        with closing(self._topic.reader(timestamps=True)) as reader:
            reader.start(self._open_databases())
            while not self._closed.is_set():
                for task in tasks:
                    task.run_if_due()
                chunks, ended = reader.read(_MAX_MESSAGES, _WAIT_S)
                self._stores.raise_read_faults()
                positions = dict(ended)  # compaction and transaction markers leave gaps before the end
                for partition, chunk in chunks.items():
                    self._apply(partition, chunk)
                    positions[partition] = max(positions.get(partition, 0), chunk.last_offset + 1)
                self._progress.advance(positions)

    def _apply(self, partition: int, chunk: PartitionChunk) -> None:
        messages = [
            (key, None if value is None else self._pack(key, value, timestamp))
            for (key, value), timestamp in zip(chunk.messages, chunk.timestamps, strict=True)
        ]
        found = self._stores.restore(partition, messages, chunk.last_offset)
        if found.overwritten:
            # The owner of the partition has its offset stay before an older record until it has written the newer one
            # again. A follower only has to know what it has read.
            self._stores.set_offset(partition, chunk.last_offset)
        if found.foreign:
            self._count_foreign(len(found.foreign))
            if not self._logged_foreign:
                self._logged_foreign = True
                text = "%s, partition %d: the message at offset %d is no record, and is ignored, as are others like it"
                _LOG.warning(text, self._topic.topic, partition, chunk.offsets[found.foreign[0]])

    def _ends(self) -> dict[int, int]:
        """Return the end offsets. Emptying a store because one is too low would take everybody's histories away."""
        ends = self._topic.end_offsets(self.partitions)
        for partition, end in ends.items():
            if end < (reached := self._stores.reached(partition)):
                self._topic.renew()
                raise TransientError(
                    "Kafka",
                    f"topic {self._topic.topic} ends at offset {end} of partition {partition}, but has held messages "
                    f"up to {reached}: the broker is not up to date, or Kafka has lost the end of the topic. If this "
                    "lasts, restart this process: it makes the copy of the partition again",
                )
            self._stores.reach(partition, end)
        return ends

    def _observe_ends(self) -> None:
        asked_at = boot_clock()
        ends = self._ends()
        if self._is_outdated():  # Kafka was unavailable, or this machine was suspended
            raise _OutdatedError(
                f"topic {self._topic.topic} was not followed for longer than Kafka keeps removals "
                "(delete.retention.ms); the next start makes the local copy again"
            )
        self._progress.observe(ends, asked_at)

    def _check_identity(self) -> None:
        now = self._identities.now()[self._topic.topic]
        if now.id != self._identity.id or now.partitions > self._identity.partitions:
            raise _TopicChangedError(
                f"topic {self._topic.topic} was deleted and created again, or got more partitions, while this process "
                "followed it; start it again: it names the remedy"
            )

    def _log_lag(self) -> None:
        lag = self.lag()
        if not lag.caught_up:
            _LOG.info("the local copy of %s: at most %d messages are to be read", self._topic.topic, lag.messages)

    def _note_progress(self) -> None:
        if self._progress.complete_until is not None:
            self._note(self._progress.complete_until)


class _TopicChangedError(RestartRequired):
    """The name of the topic stands for something else than at the start."""


class _OutdatedError(RestartRequired):
    """The copy may have missed removals."""


class _Periodic:
    """A task that is due at once, and then at intervals."""

    def __init__(self, interval_s: float, task: Callable[[], object]) -> None:
        self._interval_s = interval_s
        self._task = task
        self._due_at = 0.0

    def run_if_due(self) -> None:
        if time.monotonic() >= self._due_at:
            self._task()
            self._due_at = time.monotonic() + self._interval_s
