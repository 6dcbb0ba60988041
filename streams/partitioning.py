"""The partition that a key belongs to: what producers compute, computed again, to find messages of those that differ.

Kafka keeps the messages of a key in order only within a partition, and each partitioner chooses another one for the
same key. So a user whose clicks come from two producers with two partitioners has two histories, and an item of two
partitions has no newest message.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection
from functools import lru_cache

from configs.schema import Partitioner
from streams.errors import BadMessage

#: Keys whose partition is remembered, in about 10 MB: computing murmur2 takes several times as long as finding one.
_CACHED_KEYS = 65_536
#: librdkafka's names of the partitioners. Messages without a key are spread at random, as by Kafka's Java clients.
LIBRDKAFKA: dict[Partitioner, str] = {
    "murmur2": "murmur2_random",
    "crc32": "consistent_random",
    "any": "murmur2_random",
}


class KeyPartitions:
    """The partitions that the keys of one topic belong to.

    Args:
        partitioner: the one that all producers use; "any" = unknown: nothing is checked, and we use murmur2.
        partitions: number of the topic's partitions.
    """

    def __init__(self, partitioner: Partitioner, partitions: int) -> None:
        self._partitioner = partitioner
        self._partitions = partitions
        self._partition_of = lru_cache(_CACHED_KEYS)(self._compute)

    def of(self, key: bytes) -> Collection[int]:
        """Return the partitions in which messages with this key may be: one, or all if that is unknown."""
        return range(self._partitions) if self._partitioner == "any" else (self._partition_of(key),)

    def target(self, key: bytes) -> int:
        """Return the partition to which a message with this key is to be sent."""
        return self._partition_of(key)

    def check(self, key: bytes, partition: int) -> None:
        """Check that a message with this key belongs to this partition.

        Raises:
            BadMessage: it belongs to another one.
        """
        if self._partitioner == "any" or (expected := self._partition_of(key)) == partition:
            return
        raise BadMessage(
            "wrong_partition",
            f"key {key!r} is in partition {partition}, but belongs to partition {expected} of {self._partitions} by "
            f"{self._partitioner}: set its producer's partitioner (librdkafka: "
            f"partitioner={LIBRDKAFKA[self._partitioner]}; others: streams/messages/README.md), or topics.partitioner "
            "if all producers use another one; then send the dead letter back",
        )

    def _compute(self, key: bytes) -> int:
        return HASHES[self._partitioner](key) % self._partitions


def murmur2(key: bytes) -> int:
    """Return the hash that Kafka's Java clients divide by the number of partitions: 31 bits of MurmurHash2."""
    mixer, mask = 0x5BD1E995, 0xFFFFFFFF
    state = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for (word,) in struct.iter_unpack("<I", key[:whole]):
        product = word * mixer & mask
        state = state * mixer & mask ^ (product ^ product >> 24) * mixer & mask
    if whole < len(key):
        state = (state ^ int.from_bytes(key[whole:], "little")) * mixer & mask
    state = (state ^ state >> 13) * mixer & mask
    return (state ^ state >> 15) & 0x7FFFFFFF


HASHES: dict[Partitioner, Callable[[bytes], int]] = {"murmur2": murmur2, "crc32": zlib.crc32, "any": murmur2}
