"""aiokafka's reading of record batches, mended: a header's name that is no UTF-8 would end the worker at each start.

Kafka takes any bytes there. aiokafka raises UnicodeDecodeError in the middle of what it has fetched, again after each
restart. Here that part is read once more, by its parser in Python, which is told to write such bytes as `\\xff`.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher  # type: ignore[import-untyped]
from aiokafka.record.default_records import _DefaultRecordBatchPy  # type: ignore[import-untyped]
from aiokafka.record.legacy_records import LegacyRecordBatch  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy  # type: ignore[import-untyped]


class _Fetched(MemoryRecords):  # type: ignore[misc]
    """Batches as they were fetched; `raw`: their bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class _Partition(fetcher.PartitionRecords):  # type: ignore[misc]
    """Successive records of a partition."""

    _records: Any

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            # Goes on at `next_fetch_offset`: what lies before was handed over already.
            self._records = _LenientRecords(self._records.raw)
            self._records_iterator = self._unpack_records()
            return super().__next__()


class _LenientRecords(_MemoryRecordsPy):  # type: ignore[misc]
    def next_batch(self) -> Any:
        raw = self._next_slice
        batch = super().next_batch()
        return batch if isinstance(batch, LegacyRecordBatch) else _LenientBatch(raw)  # legacy ones have no headers


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """Of which the parser decodes nothing but slices, the names of headers."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _LenientBytes(found) if isinstance(place, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


def tolerate_header_names() -> None:
    """From now on, for all of aiokafka's consumers of this process."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = _Partition
