"""Bring the local history store up to the changelog, and repair the changelog where an older record is the last one.

A history record is a pure function of its user's clicks up to its fence, so of two records the one with the higher
fence is right, whichever worker wrote it, and the store keeps that one. Kafka's compaction keeps the one written last.
Where a zombie wrote an older record after a newer one, or another program something else, the owner writes the newer
one again.
Why no record is lost, in eight points: `streams/DELIVERY.md`, *The changelog and its repair*. The code relies on these:

- Point 1: whatever needs a repair is after the offset of every store.
- Point 2: a repair is acknowledged before the store's offset moves past the older record.
- Point 3: the worker's own records move the offset only if no other worker's record lies in between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from configs.errors import TransientError
from streams.history import fence_offset
from streams.ports import Output, RecordProducer
from streams.state.changelog import Changelog, partitions_text
from streams.state.replica import Replica, first_unread_offsets
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")

#: Seconds between log lines of a long restore.
_LOG_INTERVAL_S = 5.0


class Restorer:
    """Keeps store and changelog consistent for the partitions that this worker owns. For the batch thread.

    Args:
        changelog: the changelog to read.
        stores: local histories.
        producer: sends repairs to the changelog.
        count_foreign: called with the number of messages that were ignored, because they are no history records.

    Attributes:
        applied: records applied so far; shows other threads that a long call makes progress.
        repaired: owned partition → offsets of the newest clicks of users whose records were written again. The
            worker that wrote the older records has sent older recommendations, too.
    """

    def __init__(
        self,
        changelog: Changelog,
        stores: PartitionStores,
        producer: RecordProducer,
        count_foreign: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.applied = 0
        self.repaired: dict[int, set[int]] = {}
        self._changelog = changelog
        self._stores = stores
        self._producer = producer
        self._count_foreign = count_foreign

    def acquire(self, partitions: Collection[int]) -> int:
        """Own these partitions and no others, and restore them before their first click is applied.

        Returns, raises:
            As `maintain`.
        """
        self._stores.own(partitions)
        self.repaired = {p: offsets for p, offsets in self.repaired.items() if p in partitions}
        started = time.monotonic()
        restored = self.maintain(partitions)
        seconds = time.monotonic() - started
        _LOG.info("acquired %s: restored %d records in %.1f s", partitions_text(partitions), restored, seconds)
        return restored

    def maintain(self, partitions: Collection[int]) -> int:
        """Apply records that the store does not reflect; write newer records again where an older one follows.

        Cheap when there is nothing to do: one request.

        Returns:
            The number of records applied.

        Raises:
            TransientError: Kafka is unavailable, or says that the changelog ends before records that it has held. A
                retry continues where this call ended.
            PartitionLost: the partitions were revoked meanwhile.
            RestartRequired, FatalError: see `streams.state.store.PartitionStores`.
        """
        ends = self._ends(partitions)
        starts = first_unread_offsets(self._stores, ends)
        if not starts:
            return 0
        replica = Replica(self._stores, self._count_foreign)
        reached = {p: ends[p] - 1 for p in starts}
        progress = _Progress(sum(ends[p] - start for p, start in starts.items()))
        for partition, chunk in self._changelog.read(starts, ends):
            replica.apply(partition, chunk)
            reached[partition] = max(reached[partition], chunk.last_offset)
            progress.add(len(chunk.messages))
            self.applied += len(chunk.messages)
        self._repair(reached, replica.overwritten)
        for partition, users in replica.repaired.items():
            self._remember(partition, self._stores.read(partition, sorted(users)))
        return progress.done

    def _ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Return the changelog's ends. One that is too low would hide records: their clicks would be missing."""
        ends = self._changelog.end_offsets(partitions)
        for partition, end in ends.items():
            if end < (reached := self._stores.reached(partition)):
                self._changelog.renew()
                raise TransientError("Kafka", self._changelog.lost_end_text(partition, end, reached))
            self._stores.reach(partition, end)
        return ends

    def _repair(self, reached: Mapping[int, int], overwritten: Mapping[int, Collection[bytes]]) -> None:
        """Write the kept records of overwritten users again, then move the partitions' offsets."""
        repairs: dict[int, dict[bytes, bytes]] = {}
        for partition in reached:
            users = sorted(overwritten.get(partition, ()))
            kept = self._stores.read(partition, users)
            repairs[partition] = {user: record for user, record in zip(users, kept, strict=True) if record is not None}
        outputs = [Output(self._changelog.topic, key, r, p) for p, new in repairs.items() for key, r in new.items()]
        offsets = iter(self._send(outputs) if outputs else ())
        for partition, offset in reached.items():
            self._stores.set_offset(partition, offset)
            if repairs[partition]:
                self._stores.write(partition, repairs[partition], [next(offsets) for _ in repairs[partition]])
                self._remember(partition, repairs[partition].values())

    def _remember(self, partition: int, records: Iterable[bytes | None]) -> None:
        """Remember the newest clicks of users whose records were repaired."""
        fences = {fence_offset(record or b"", partition) for record in records}
        if offsets := {fence for fence in fences if fence is not None and fence >= 0}:
            self.repaired.setdefault(partition, set()).update(offsets)

    def _send(self, outputs: Sequence[Output]) -> Sequence[int]:
        self._stores.check({output.partition for output in outputs if output.partition is not None})
        offsets = self._producer.send(outputs)
        _LOG.warning(
            "another worker wrote older records after newer ones, or another program something else; wrote %d records "
            "again",
            len(outputs),
        )
        return offsets


class _Progress:
    """Counts records, and logs the progress of a long restore."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self._total = total
        self._started_at = self._logged_at = time.monotonic()

    def add(self, records: int) -> None:
        self.done += records
        now = time.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = now
            rate = self.done / (now - self._started_at)
            seconds_left = max(0, self._total - self.done) / rate
            _LOG.info(
                "restored %d of at most %d records, %.0f per second, at most %.0f s left",
                self.done,
                self._total,
                rate,
                seconds_left,
            )
