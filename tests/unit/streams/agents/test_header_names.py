"""aiokafka reads batches of other programs: with each compression, and with any bytes as a header's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.consumer import fetcher  # type: ignore[import-untyped]
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder  # type: ignore[import-untyped]
from aiokafka.structs import TopicPartition  # type: ignore[import-untyped]

from streams.agents.header_names import tolerate_header_names

NAME = b"name"
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@pytest.fixture(autouse=True)
def _patched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MemoryRecords", "PartitionRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))  # so that the original is restored after the test
    tolerate_header_names()


def _batch(codec: str, first: int, names: Sequence[bytes]) -> bytes:
    """Build a batch with a record for each header name. The builder takes only text; tests replace it."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 10**6)
    for offset, name in enumerate(names):
        builder.append(offset, 1000, b"key", b"value %d" % (first + offset), [(name.decode("latin-1"), b"x")])
    batch = bytearray(builder.build())
    batch[:8] = first.to_bytes(8, "big")
    return bytes(batch)


def _read(raw: bytes, begin: int = 0) -> list[tuple[int, bytes, Any]]:
    records = fetcher.MemoryRecords(raw)
    partition = fetcher.PartitionRecords(TopicPartition("clicks", 0), records, [], begin, None, None, False, 0)
    return [(record.offset, record.value, record.headers) for record in partition]


@pytest.mark.parametrize("codec", CODECS)
def test_batches_of_each_compression_are_read(codec: str) -> None:
    found = _read(_batch(codec, 7, [NAME] * 3))
    assert found == [(n, b"value %d" % n, (("name", b"x"),)) for n in (7, 8, 9)]


def test_a_name_that_is_not_utf8_does_not_stop_the_reader() -> None:
    odd = _batch("none", 3, [NAME, NAME, b"name"]).replace(b"\x08name\x02x", b"\x08n\xff\xfee\x02x")
    legacy = LegacyRecordBatchBuilder(1, 0, 10**6)
    legacy.append(9, 1000, b"key", b"old")
    found = _read(_batch("lz4", 0, [NAME] * 3) + odd + _batch("zstd", 6, [NAME] * 3) + bytes(legacy.build()), 1)
    assert [(offset, value) for offset, value, _ in found] == [
        *((n, b"value %d" % n) for n in range(1, 9)),
        (9, b"old"),
    ]
    assert [headers for _, _, headers in found[2:5]] == [((r"n\xff\xfee", b"x"),)] * 3
    assert found[5][2] == (("name", b"x"),)


def test_records_before_the_name_are_not_delivered_again() -> None:
    batch = _batch("none", 0, [NAME, b"nome", NAME])
    found = _read(batch.replace(b"nome", b"n\xffme"))
    assert [offset for offset, _, _ in found] == [0, 1, 2]
    assert found[1][2] == ((r"n\xffme", b"x"),)
