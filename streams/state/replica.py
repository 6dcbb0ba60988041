"""Apply the changelog to the local store."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from streams.state.changelog import ChangelogChunk
from streams.state.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")


class Replica:
    """Applies what is read of the changelog to the store, in order.

    Attributes:
        behind: partition → users whose last record read is older than the one that the store keeps. While there are
            any, the partition's offset stays in front of them.
    """

    def __init__(self, stores: PartitionStores) -> None:
        self.behind: dict[int, set[bytes]] = {}
        self._stores = stores

    def apply(self, partition: int, chunk: ChangelogChunk) -> None:
        """Raises PartitionLost, CorruptHistoryError."""
        before = self.behind.get(partition)
        now = self._stores.restore(partition, chunk.records, None if before else chunk.reached)
        if before:
            now |= before.difference(key for key, _ in chunk.records)
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
