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
from collections.abc import Collection, Mapping, Sequence

from configs.errors import FatalError
from streams.history import CorruptHistoryError, History
from streams.kafka.offsets import Positions
from streams.ports import Output, RecordProducer
from streams.state.changelog import Changelog, corrupt, listed
from streams.state.replica import Replica, first_unread
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")

#: Seconds between log lines of a long restore.
_LOG_EVERY = 5.0


class Restorer:
    """Keeps store and changelog together for the partitions that this worker owns. For the batch thread.

    Args:
        changelog: to read.
        stores: local histories.
        producer: sends repairs to the changelog.

    Attributes:
        applied: records so far, by which others see that a long call goes on.
    """

    def __init__(self, changelog: Changelog, stores: PartitionStores, producer: RecordProducer) -> None:
        self.applied = 0
        self._changelog = changelog
        self._stores = stores
        self._producer = producer

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
        offsets = self._producer.send(outputs)
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
