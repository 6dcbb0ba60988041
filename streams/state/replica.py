"""Apply the changelog to the local store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from streams.history import is_user_key
from streams.kafka.partition_reader import PartitionChunk
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")


class Replica:
    """Applies chunks of the changelog to the store, in order.

    Messages that are no history records (another program has written them) are ignored, counted and logged. If such a
    message is the last one with a user's key, compaction would keep it: the user counts as overwritten.

    Args:
        stores: local histories.
        count_foreign: called with the number of messages that were ignored.

    Attributes:
        overwritten: partition → users whose last message read is older than the record that the store keeps, or is no
            history record. While there are any, the partition's stored offset stays before those messages.
        repaired: partition → users whose newer record was overwritten, and written again by another worker.
    """

    def __init__(self, stores: PartitionStores, count_foreign: Callable[[int], object] = lambda _: None) -> None:
        self.overwritten: dict[int, set[bytes]] = {}
        self.repaired: dict[int, set[bytes]] = {}
        self._stores = stores
        self._count_foreign = count_foreign
        self._logged: set[tuple[int, str]] = set()  # partition, and what happens to the history

    def apply(self, partition: int, chunk: PartitionChunk) -> None:
        """Apply the next chunk of a partition.

        Raises:
            PartitionLost: the partition belongs to another worker.
        """
        before = self.overwritten.get(partition)
        now, repaired, foreign = self._stores.restore(partition, chunk.messages, None if before else chunk.last_offset)
        if before:
            read = {key for key, _ in chunk.messages if key is not None}
            repaired |= (before & read) - now
            now |= before - read
        self.repaired.setdefault(partition, set()).update(repaired)
        self.overwritten[partition] = now
        if foreign:
            self._count_foreign(len(foreign))
        for position in foreign:
            key, _ = chunk.messages[position]
            self._log_foreign(partition, chunk.offsets[position], key, kept=key in now)

    def _log_foreign(self, partition: int, offset: int, key: bytes | None, kept: bool) -> None:
        if kept:
            effect = "the owner of the partition writes the user's history again"
        elif is_user_key(key):
            effect = "if compaction has removed this user's history because of it, the user begins with an empty one"
        else:
            effect = "no user has such a key"
        if (partition, effect) not in self._logged:
            self._logged.add((partition, effect))
            _LOG.warning(
                "changelog, partition %d: the message at offset %d with key %.100r is no history record, and is "
                "ignored, as are others like it; %s. Another program writes to this topic: remove its right to do so",
                partition,
                offset,
                key,
                effect,
            )


def first_unread_offsets(stores: PartitionStores, ends: Mapping[int, int]) -> dict[int, int]:
    """Return partition → offset to read from, for partitions with records that the store does not reflect.

    A store that is ahead of the changelog is emptied, to be restored from the changelog's beginning.

    Args:
        stores: local histories; they own the partitions.
        ends: as returned by `Changelog.end_offsets`.
    """
    starts = {}
    for partition, end in ends.items():
        stored = stores.offset(partition)
        if stored >= end:
            # Kafka lost the end of the topic (an unclean leader election); all workers agree only on what remains.
            _LOG.warning("partition %d: the local store is ahead of the changelog; restoring it in full", partition)
            stores.clear(partition)
            stored = -1
        if stored + 1 < end:
            starts[partition] = stored + 1
    return starts
