"""A fix of aiokafka's parser: a header name that is not UTF-8 would crash the worker, again after each restart.

Kafka accepts any bytes in a header name. aiokafka raises UnicodeDecodeError in the middle of the fetched batches. Here
those batches are then parsed again by aiokafka's parser in Python, with such bytes written as `\\xff`.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher  # type: ignore[import-untyped]
from aiokafka.record.default_records import _DefaultRecordBatchPy  # type: ignore[import-untyped]
from aiokafka.record.legacy_records import LegacyRecordBatch  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy  # type: ignore[import-untyped]


class _Fetched(MemoryRecords):  # type: ignore[misc]
    """Record batches as they were fetched; `raw` holds their bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class _Partition(fetcher.PartitionRecords):  # type: ignore[misc]
    """Successive records of a partition, parsed leniently from the first undecodable header name on."""

    _records: Any

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            # Continues at `next_fetch_offset`: everything before it was delivered already.
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
    """A buffer whose slices decode leniently: the parser decodes nothing but header names."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _LenientBytes(found) if isinstance(key, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


def tolerate_header_names() -> None:
    """Make all aiokafka consumers of this process tolerate header names that are not UTF-8."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = _Partition
