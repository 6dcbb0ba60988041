"""Users' click histories: the record, its format in bytes, and the fence by which every click is applied once.

Kafka delivers at least once. Each record has a *fence*: the partition and offset of the last click applied to it. A
click of that partition at or below that offset is not applied again. A click of another partition cannot be compared
with the fence; it is applied, and becomes the fence.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from configs.errors import MindstreamError
from model.arrays import IdVector

#: Format (1 byte), partition (int32) and offset (int64) of the fence. Item ids follow, oldest first, 8 bytes each:
#: a history of 20 clicks has 173 bytes.
_HEADER = struct.Struct("<Biq")
_FORMAT = 1


#: Partition and offset of the newest click that a record knows. Of two fences of one partition, the higher one is
#: newer; fences of different partitions cannot be compared.
Fence = tuple[int, int]


class CorruptHistoryError(MindstreamError):
    """Bytes in the history store or its changelog that this version did not write."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One user's newest clicks.

    Attributes:
        partition, offset: the fence.
        items: (n,) int64 item ids, oldest first; n is at most the configured length.
    """

    partition: int
    offset: int
    items: IdVector

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, History)
            and (self.partition, self.offset) == (other.partition, other.offset)
            and np.array_equal(self.items, other.items)
        )

    __hash__ = None  # type: ignore[assignment]  # an array has no hash

    def to_bytes(self) -> bytes:
        return _HEADER.pack(_FORMAT, self.partition, self.offset) + self.items.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, record: bytes) -> History:
        """Decode what `to_bytes` returned.

        Raises:
            CorruptHistoryError: the bytes are not a record of this format.
        """
        _, partition, offset = _header(record)
        return cls(partition, offset, np.frombuffer(record, dtype="<i8", offset=_HEADER.size))


def newer_record(a: bytes, b: bytes) -> bytes:
    """Return the record with the higher fence, or `b` where the fences cannot be compared.

    The last record of a user in a changelog is normally the newest. It is not if a worker that was paused past its
    session resumes and sends the records of its batch after the partition's new owner has written newer ones
    (`streams.state.restore`).

    Raises:
        CorruptHistoryError: one of the two is not a record of this format.
    """
    (_, partition_a, offset_a), (_, partition_b, offset_b) = _header(a), _header(b)
    return a if partition_a == partition_b and offset_a > offset_b else b


def fence_offset(record: bytes, partition: int) -> int | None:
    """Return the offset of a record's fence; None if the bytes are no history record of this partition.

    A history is in the partition of its clicks, so a worker never writes a fence of another partition. The partition -1
    is that of a history without clicks of this topic: its fence is below all clicks.
    """
    try:
        _, fence_partition, offset = _header(record)
    except CorruptHistoryError:
        return None
    return offset if fence_partition in (partition, -1) else None


def history_fence(record: bytes, partition: int) -> Fence | None:
    """Return a record's fence as a `Fence`; see `fence_offset`."""
    offset = fence_offset(record, partition)
    return None if offset is None else (partition, offset)


def is_user_key(key: bytes | None) -> TypeGuard[bytes]:
    """Return whether a message's key can be a user's: text in UTF-8."""
    if not key:
        return False
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _header(record: bytes) -> tuple[int, int, int]:
    if len(record) < _HEADER.size or (len(record) - _HEADER.size) % 8:
        raise CorruptHistoryError(f"a history record cannot have {len(record)} bytes")
    version, partition, offset = _HEADER.unpack_from(record)
    if version != _FORMAT:
        raise CorruptHistoryError(f"history record of format {version}; this version reads format {_FORMAT}")
    return version, partition, offset


def apply_clicks(
    history: History | None, partition: int, clicks: Iterable[tuple[int, int]], length: int
) -> tuple[History, int]:
    """Append clicks of one partition to a user's history.

    Args:
        history: the user's history so far; None for a new user.
        partition: the partition that the clicks came from.
        clicks: (offset, item id) of at least one click, in the order of delivery.
        length: number of clicks to keep.

    Returns:
        The new history and the number of clicks applied. If the fence stopped all of them, the number is 0 and the
        history is the old one.
    """
    fence = history.offset if history is not None and history.partition == partition else -1
    applied: list[int] = []
    for offset, item_id in clicks:
        if offset > fence:
            applied.append(item_id)
            fence = offset  # Kafka's client may deliver a message twice within a batch, too
    if not applied:
        assert history is not None  # without a history the fence is -1, below every offset
        return history, 0
    older = history.items if history is not None else np.empty(0, dtype=np.int64)
    items = np.concatenate([older, np.array(applied, dtype=np.int64)])[-length:]
    return History(partition, fence, items), len(applied)
