"""The histories of all users, from a local copy of their changelog."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from configs.schema import Partitioner
from streams.history import Fence, History, history_fence
from streams.partitioning import KeyPartitions
from streams.ports import ReplicaLag
from streams.service.ports import UserHistory
from streams.state.follower import Follower

#: Time at which Kafka received the record, in seconds since 1970. The record follows.
_HEADER = struct.Struct("<d")


def pack_history(_user: bytes | None, record: bytes, received_at: float) -> bytes:
    """Return the bytes to store for a history record, which Kafka received at this time."""
    return _HEADER.pack(received_at) + record


def stored_history_fence(stored: bytes, partition: int) -> Fence | None:
    """Return the fence of stored bytes; None if they hold no history record of this partition."""
    return history_fence(stored[_HEADER.size :], partition)


class HistoryReplica:
    """`streams.service.ports.UserHistories` from a copy of the changelog. Thread-safe.

    Args:
        follower: follows the changelog, with the two functions above.
        partitioner: chooses the partition of a user's clicks.
    """

    def __init__(self, follower: Follower, partitioner: Partitioner) -> None:
        self._follower = follower
        self._partitions = KeyPartitions(partitioner, len(follower.partitions))

    def get(self, user_ids: Sequence[str]) -> list[UserHistory | None]:
        """See `streams.service.ports.UserHistories.get`. A user with histories in several partitions has the newest."""
        found: list[UserHistory | None] = [None] * len(user_ids)
        wanted: dict[int, list[int]] = {}  # partition → positions in `user_ids`
        keys = [user_id.encode() for user_id in user_ids]
        for position, key in enumerate(keys):
            for partition in self._partitions.of(key):
                wanted.setdefault(partition, []).append(position)
        for partition, positions in wanted.items():
            stored = self._follower.read(partition, [keys[position] for position in positions])
            for position, record in zip(positions, stored, strict=True):
                if record is not None:
                    found[position] = _newest(found[position], _unpack(record))
        return found

    def lag(self) -> ReplicaLag:
        """See `streams.service.ports.UserHistories.lag`."""
        return self._follower.lag()

    def close(self) -> None:
        """Stop following, and close the copy."""
        self._follower.close()


def _unpack(stored: bytes) -> UserHistory:
    (received_at,) = _HEADER.unpack_from(stored)
    history = History.from_bytes(stored[_HEADER.size :])
    return UserHistory(history.items, history.partition, history.offset, received_at)


def _newest(a: UserHistory | None, b: UserHistory) -> UserHistory:
    return a if a is not None and (a.updated_at or 0.0) > (b.updated_at or 0.0) else b
