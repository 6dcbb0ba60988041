"""Apply the changelog to the local store."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from streams.kafka.partition_reader import PartitionChunk
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")


class Replica:
    """Applies chunks of the changelog to the store, in order.

    Attributes:
        overwritten: partition → users whose last record read is older than the one that the store keeps. While there
            are any, the partition's stored offset stays before their older records.
    """

    def __init__(self, stores: PartitionStores) -> None:
        self.overwritten: dict[int, set[bytes]] = {}
        self._stores = stores

    def apply(self, partition: int, chunk: PartitionChunk) -> None:
        """Apply the next chunk of a partition.

        Raises:
            PartitionLost: the partition belongs to another worker.
            CorruptHistoryError: a value is not a history record.
        """
        before = self.overwritten.get(partition)
        now = self._stores.restore(partition, chunk.messages, None if before else chunk.last_offset)
        if before:
            now |= before.difference(key for key, _ in chunk.messages)
        self.overwritten[partition] = now


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
