"""The protocols of `streams.ports` in memory, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from streams.ports import Output


class MemoryHistoryStore:
    """Keeps records, and the changelog offset of each partition, in dicts. It owns every partition."""

    def __init__(self) -> None:
        self.records: dict[int, dict[bytes, bytes]] = {}
        self.offsets: dict[int, int] = {}

    def check(self, partitions: Collection[int]) -> None:
        pass

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.records.get(partition, {}).get(key) for key in keys]

    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        self.records.setdefault(partition, {}).update(records)
        self.offsets[partition] = max(offsets)


class MemoryRecordProducer:
    """Keeps the messages that were sent. Offsets count up over all topics."""

    def __init__(self) -> None:
        self.sent: list[Output] = []

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        first = len(self.sent)
        self.sent.extend(outputs)
        produced()
        return range(first, len(self.sent))
