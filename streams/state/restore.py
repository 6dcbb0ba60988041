"""Brings the local history store up to the changelog, and repairs the changelog where an older record stands last.

A history record is a pure function of its user's clicks up to its fence. So whoever writes a record with the same fence
writes the same bytes, of two records the one with the higher fence is right, and the store keeps that one, in whatever
order they come. One thing does not know this order: Kafka's compaction keeps the record written last. A worker that was
paused past its session (a zombie) may write an older record behind a newer one; the owner then writes the newer one
again. No worker is fenced off and none waits for a transaction. Why this is enough:

1. The store's offset means: of every user, it keeps the newest of all records up to there, and either this one is also
   the last of them, or another record follows behind the offset. The cases below keep this true; so whatever needs a
   repair lies behind the offset of every store, and a look at the changelog's end tells whether there is anything.
2. Reading moves the offset only while no user is known whose last record is older than the kept one. What is written
   again is acknowledged before the offset moves over the older record. Death in between: it is read and found again.
   Death after the sending, or a sending whose acknowledgement was lost: the newer record is read as the last one, and
   nothing is sent.
3. The worker's own records move the offset only where nobody's lie between. From the first foreign record on it stays,
   until the next look reads the rest, its own records included.
4. A zombie that writes again meanwhile, before or behind the repair, writes behind the offset: the next look finds it.
   The zombie ends with its first heartbeat, whose answer says that its partitions are gone.
5. Two owners for a moment: each sends the newest record that it knows of. Once they have read each other's, both keep
   the same one, and equal fences need no repair. Neither can bring the other's store to an older history.
6. A zombie's record that is ahead of the owner's is simply adopted. Its fence stops the clicks that it counts when the
   owner comes to them; their recommendations are sent again.
7. A record without value removes the user; there the order of the changelog counts, and what stands before it is gone.
8. Until the repair, compaction must leave the newer record alone: `streams.kafka.topics.COMPACTION_LAG`. It is lost
   only if the partition has no owner for that long and no later owner has a store that knew it.

The end offset of a partition is one more than the offset of its last record: the producers use no transactions, whose
markers would take offsets too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage

from configs.schema import Kafka
from streams.errors import FatalError, TransientError
from streams.history import CorruptHistoryError, History
from streams.kafka.client import ADMIN_TIMEOUT, Positions, fault, harmless, reader
from streams.ports import Outbox, Output
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")

#: Most records read, and written to the store, at a time. Larger batches are no faster.
_BATCH = 10_000
#: Kilobytes of records that the client reads ahead.
_READ_AHEAD = 16 * 1024
#: Seconds to wait for a batch to fill.
_WAIT = 0.1
#: Seconds between log lines of a long restore.
_LOG_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Portion:
    """Some successive records of one partition.

    Attributes:
        records: user keys and history records, None = remove.
        reached: offset of the last one.
    """

    records: Sequence[tuple[bytes, bytes | None]]
    reached: int


class ChangelogReader:
    """Reads partitions of the changelog from given offsets. Joins no consumer group. For one thread."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._topic = topic
        settings = {
            # Offsets that Kafka does not have (any more): reading a record again changes nothing.
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": _READ_AHEAD,
        }
        self._consumer = Consumer(
            reader(kafka, "mindstream-restore", **settings), logger=logging.getLogger("mindstream.kafka")
        )

    def start(self, starts: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in starts.items()])

    def read(self, most: int, wait: float) -> tuple[dict[int, Portion], dict[int, int]]:
        """Wait up to `wait` seconds for `most` records.

        Returns:
            Records by partition; and for partitions that were read to their end, the offset after it.

        Raises:
            TransientError: Kafka is away.
        """
        runs: dict[int, list[RawMessage]] = {}
        ended: dict[int, int] = {}
        try:
            for message in self._consumer.consume(most, wait):
                error = message.error()
                if error is None:
                    runs.setdefault(_int(message.partition()), []).append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended[_int(message.partition())] = _int(message.offset())
                elif not harmless(error):
                    raise fault(error, self._topic)
        except KafkaException as error:
            raise fault(error.args[0]) from None
        return {partition: _portion(run) for partition, run in runs.items()}, ended

    def close(self) -> None:
        self._consumer.close()


def _portion(run: Sequence[RawMessage]) -> Portion:
    records = [(message.key(), message.value()) for message in run]
    return Portion(cast("list[tuple[bytes, bytes | None]]", records), _int(run[-1].offset()))


def _int(value: int | None) -> int:
    assert value is not None  # the types leave it open
    return value


class Changelog:
    """The changelog topic of the histories, as workers read it.

    Args:
        kafka: the cluster.
        topic: the topic's name.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.topic = topic
        self._kafka = kafka
        self._positions = Positions(kafka, topic)

    def ends(self, partitions: Collection[int]) -> dict[int, int]:
        """Partition → the offset after its last record.

        Raises:
            TransientError: Kafka is away.
        """
        return self._positions.ends(partitions)

    def reader(self) -> ChangelogReader:
        return ChangelogReader(self._kafka, self.topic)

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[tuple[int, Portion]]:
        """Partitions' records from their start up to their end, as they come.

        Raises:
            TransientError: Kafka is away or does not answer for 30 seconds.
        """
        with closing(self.reader()) as reader:
            reader.start(starts)
            left = {p: ends[p] - start for p, start in starts.items()}  # at most: compaction leaves gaps
            heard = time.monotonic()
            while left:
                portions, ended = reader.read(min(_BATCH, sum(left.values())), _WAIT)
                for partition, portion in portions.items():
                    if partition in left:
                        yield partition, portion
                        left[partition] = ends[partition] - 1 - portion.reached
                left = {p: n for p, n in left.items() if n > 0 and ended.get(p, -1) < ends[p]}
                if portions or ended:
                    heard = time.monotonic()
                elif time.monotonic() - heard > 3 * ADMIN_TIMEOUT:
                    raise TransientError("Kafka", f"{self.topic}: nothing for {3 * ADMIN_TIMEOUT:.0f} s before its end")


class Replica:
    """Applies what is read of the changelog to the store, in order.

    Attributes:
        behind: partition → users whose last record read is older than the one that the store keeps. While there are
            any, the partition's offset stays in front of them.
    """

    def __init__(self, stores: PartitionStores) -> None:
        self.behind: dict[int, set[bytes]] = {}
        self._stores = stores

    def apply(self, partition: int, portion: Portion) -> None:
        """Raises PartitionLost, CorruptHistoryError."""
        before = self.behind.get(partition)
        now = self._stores.restore(partition, portion.records, None if before else portion.reached)
        if before:
            now |= before.difference(key for key, _ in portion.records)
        self.behind[partition] = now


def first_unread(stores: PartitionStores, ends: Mapping[int, int]) -> dict[int, int]:
    """Partition → offset to read from, for those with records that the store does not reflect.

    Args:
        stores: local histories; they own the partitions.
        ends: as `Changelog.ends`.
    """
    starts = {}
    for partition, end in ends.items():
        reflected = stores.offset(partition)
        if reflected >= end:
            # Kafka lost the end of the topic (an unclean leader election): what it has is what all workers agree on.
            _LOG.warning(
                "partition %d: the store is ahead of the changelog, restoring it from its beginning", partition
            )
            stores.forget(partition)
            reflected = -1
        if reflected + 1 < end:
            starts[partition] = reflected + 1
    return starts


class Restorer:
    """Keeps store and changelog together for the partitions that this worker owns. For the batch thread.

    Args:
        changelog: to read.
        stores: local histories.
        outbox: sends repairs to the changelog.

    Attributes:
        applied: records so far, by which others see that a long call goes on.
    """

    def __init__(self, changelog: Changelog, stores: PartitionStores, outbox: Outbox) -> None:
        self.applied = 0
        self._changelog = changelog
        self._stores = stores
        self._outbox = outbox

    def take_over(self, partitions: Collection[int]) -> int:
        """Own these partitions and no others, and `tend` them before their first click is applied."""
        self._stores.own(partitions)
        started = time.monotonic()
        restored = self.tend(partitions)
        seconds = time.monotonic() - started
        _LOG.info("took over %s: %d records restored in %.1f s", listed(partitions), restored, seconds)
        return restored

    def tend(self, partitions: Collection[int]) -> int:
        """Apply what the store does not reflect, and write newer records again that an older one follows.

        Cheap when there is nothing to do: one request.

        Returns:
            The number of records applied.

        Raises:
            TransientError: Kafka is away. Calling again goes on where this call ended.
            PartitionLost: the partitions moved on meanwhile.
            FatalError: the changelog holds something that is no history record of this version.
        """
        ends = self._changelog.ends(partitions)
        starts = first_unread(self._stores, ends)
        if not starts:
            return 0
        replica = Replica(self._stores)
        reached = {p: ends[p] - 1 for p in starts}
        progress = _Progress(sum(ends[p] - start for p, start in starts.items()))
        try:
            for partition, portion in self._changelog.read(starts, ends):
                replica.apply(partition, portion)
                reached[partition] = max(reached[partition], portion.reached)
                progress.add(len(portion.records))
                self.applied += len(portion.records)
        except CorruptHistoryError as error:
            raise corrupt(self._changelog.topic, error) from None
        self._finish(reached, replica.behind)
        return progress.done

    def _finish(self, reached: Mapping[int, int], behind: Mapping[int, Collection[bytes]]) -> None:
        repairs: dict[int, dict[bytes, bytes]] = {}
        for partition in reached:
            users = sorted(behind.get(partition, ()))
            kept = self._stores.read(partition, users)
            repairs[partition] = {user: record for user, record in zip(users, kept, strict=True) if record is not None}
        outputs = [Output(self._changelog.topic, key, r, p) for p, new in repairs.items() for key, r in new.items()]
        offsets = iter(self._send(outputs) if outputs else ())
        for partition, offset in reached.items():
            self._stores.reflect(partition, offset)
            if repairs[partition]:
                self._stores.write(partition, repairs[partition], [next(offsets) for _ in repairs[partition]])

    def _send(self, outputs: Sequence[Output]) -> Sequence[int]:
        self._stores.check({output.partition for output in outputs if output.partition is not None})
        offsets = self._outbox.send(outputs)
        _LOG.warning(
            "another worker wrote %d older histories behind newer ones; wrote the newer ones again", len(outputs)
        )
        return offsets


def check_fences(changelog: Changelog, clicks: Positions, partitions: Collection[int]) -> None:
    """Refuse histories that reflect clicks which their topic does not have: it was made anew.

    It counts from 0 again, and new clicks below the old fences would be passed over as repeats. The last record of a
    partition is enough to tell: it is about as far on as any.

    Args:
        changelog: of the histories.
        clicks: the topic that they are made of.
        partitions: to look at.

    Raises:
        TransientError: Kafka is away.
        FatalError: the topic was made anew; the message says what to do.
    """
    ends = changelog.ends(partitions)
    fences: dict[int, int] = {}
    for partition, portion in changelog.read({p: end - 1 for p, end in ends.items() if end > 0}, ends):
        for _, record in portion.records:
            if record is not None and (history := History.from_bytes(record)).partition == partition:
                fences[partition] = history.offset
    known = clicks.ends(fences)  # asked last: what a fence names was there before
    for partition, fence in fences.items():
        if fence >= known[partition]:
            raise FatalError(
                f"topic {clicks.topic} ends at offset {known[partition]} of partition {partition}, but histories "
                f"reflect offset {fence}: it was deleted and made anew. Begin anew under another worker.group. (If it "
                "only lost its end, start again when it has grown beyond that offset)"
            )


def listed(partitions: Collection[int]) -> str:
    """For the log."""
    return f"partitions {', '.join(map(str, sorted(partitions))) or 'none'}"


def corrupt(topic: str, error: CorruptHistoryError) -> FatalError:
    """What an operator is told about a changelog that cannot be read."""
    return FatalError(
        f"topic {topic} holds something that is no history of this version: {error}. Run the version that wrote it, or "
        "begin anew under another worker.group"
    )


class _Progress:
    """Counts records, and logs how far a long restore is."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self._total = total
        self._began = self._logged = time.monotonic()

    def add(self, records: int) -> None:
        self.done += records
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY:
            self._logged = now
            rate = self.done / (now - self._began)
            left = max(0, self._total - self.done) / rate
            _LOG.info(
                "restored %d of at most %d records, %.0f a second, at most %.0f s left",
                self.done,
                self._total,
                rate,
                left,
            )
