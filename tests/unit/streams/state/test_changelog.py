"""Reading the changelog up to given ends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import streams.state.changelog
from configs.errors import TransientError
from streams.kafka.partition_reader import PartitionChunk, PartitionReader
from streams.state.changelog import partitions_text
from tests.unit.changelog import MemoryChangelog, record


class _ScriptedReader(PartitionReader):
    """Returns the given chunks one after the other, and then nothing."""

    def __init__(self, *results: tuple[dict[int, PartitionChunk], dict[int, int]]) -> None:
        self._results = list(results)
        self.limits: list[int] = []
        self.closed = False

    def start(self, starts: Mapping[int, int]) -> None: ...

    def read(self, max_messages: int, timeout_s: float) -> tuple[dict[int, PartitionChunk], dict[int, int]]:
        self.limits.append(max_messages)
        return self._results.pop(0) if self._results else ({}, {})

    def close(self) -> None:
        self.closed = True


def _chunk(*offsets: int) -> PartitionChunk:
    return PartitionChunk([(b"a", record(offset)) for offset in offsets], offsets)


def _read(monkeypatch: pytest.MonkeyPatch, reader: _ScriptedReader, ends: dict[int, int]) -> list[tuple[int, int]]:
    changelog = MemoryChangelog(partitions=2)
    monkeypatch.setattr(changelog, "reader", lambda: reader)
    found = [(partition, chunk.last_offset) for partition, chunk in changelog.read(dict.fromkeys(ends, 0), ends)]
    assert reader.closed
    return found


def test_each_partition_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = _ScriptedReader(({0: _chunk(0, 1)}, {}), ({0: _chunk(2), 1: _chunk(0)}, {}))
    assert _read(monkeypatch, reader, {0: 3, 1: 1}) == [(0, 1), (0, 2), (1, 0)]
    assert reader.limits == [4, 2]


def test_a_gap_before_the_end_does_not_stop_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction removes records: only the end of the partition shows that nothing follows."""
    reader = _ScriptedReader(({0: _chunk(0)}, {}), ({}, {0: 9}))
    assert _read(monkeypatch, reader, {0: 9}) == [(0, 0)]


def test_a_silent_broker_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.state.changelog, "SILENCE_TIMEOUT_S", 0.0)
    with pytest.raises(TransientError, match="changelog: no message for 0 s before its end"):
        _read(monkeypatch, _ScriptedReader(), {0: 9})


def test_texts_for_operators() -> None:
    assert partitions_text({2, 0}) == "partitions 0, 2"
    assert partitions_text([]) == "partitions none"
