"""Users' click histories: the record, its bytes, and the fence that counts every click once.

Kafka delivers at least once. Each record keeps the (partition, offset) of the last click applied to it, the *fence*;
a click of that partition at or below that offset has been counted already and is not applied again. Offsets of
another partition cannot be compared with the fence: there the click is applied and the fence moves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from configs.errors import MindstreamError

IdVector = npt.NDArray[np.int64]

#: format (1 byte), partition (int32), offset (int64) of the fence; then the item ids, oldest first, 8 bytes each.
#: A full window of 20 clicks takes 173 bytes.
_HEADER = struct.Struct("<Biq")
_FORMAT = 1


class CorruptHistoryError(MindstreamError):
    """Bytes in the history store or its changelog that this version did not write."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One user's newest clicks, oldest first: `items` has shape (n,), n ≤ the configured length, dtype int64."""

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
        """The inverse of `to_bytes`.

        Raises:
            CorruptHistoryError: the bytes are no record of this format.
        """
        _, partition, offset = _header(record)
        return cls(partition, offset, np.frombuffer(record, dtype="<i8", offset=_HEADER.size))


def newer_record(a: bytes, b: bytes) -> bytes:
    """The record that is further on: the one with the higher fence, or `b` where fences cannot be compared.

    In a changelog the last record of a user is normally the newest. It is not when a worker that was paused past its
    session wakes up and still sends what it had in hand, after the partition's new owner has written
    (`streams.state.restore`).

    Raises:
        CorruptHistoryError: the bytes are no records of this format.
    """
    (_, partition_a, offset_a), (_, partition_b, offset_b) = _header(a), _header(b)
    return a if partition_a == partition_b and offset_a > offset_b else b


def check_record(record: bytes) -> None:
    """Raises `CorruptHistoryError` unless the bytes are a record of this format."""
    _header(record)


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
        history: what is known of the user; None for a new user.
        partition: partition that the clicks came from.
        clicks: (offset, item id), at least one, in the order of delivery.
        length: clicks to keep.

    Returns:
        The new history and the number of clicks applied; 0 of them means that the fence stopped all of them and the
        history is the old one.
    """
    fence = history.offset if history is not None and history.partition == partition else -1
    fresh: list[int] = []
    for offset, item_id in clicks:
        if offset > fence:
            fresh.append(item_id)
            fence = offset  # within a batch, too: Kafka's client may deliver a message twice in a row
    if not fresh:
        assert history is not None  # without a history the fence is -1 and lets every offset pass
        return history, 0
    older = history.items if history is not None else np.empty(0, dtype=np.int64)
    items = np.concatenate([older, np.array(fresh, dtype=np.int64)])[-length:]
    return History(partition, fence, items), len(fresh)
