"""A changelog in memory, as `streams.state.restore` reads it, and an producer that writes to it and fails on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from configs.errors import TransientError
from streams.history import History
from streams.ports import Output
from streams.state.changelog import Changelog, ChangelogChunk, StoreChangelogReader


def record(fence: int, partition: int = 0) -> bytes:
    """A history record as the clicks up to this fence make it."""
    return History(partition, fence, np.array([fence])).to_bytes()


class MemoryChangelog(Changelog):
    """Records in lists.

    Attributes:
        log: partition → (user key, record), at their offsets.
        away: Kafka does not answer.
        before_chunk: is called before each chunk that is read.
        chunk: most records in one.
        reads: how many readers there were.
    """

    def __init__(self, partitions: int = 1, chunk: int = 10_000) -> None:
        self.topic = "changelog"
        self.log: dict[int, list[tuple[bytes, bytes | None]]] = {p: [] for p in range(partitions)}
        self.away = False
        self.before_chunk: Callable[[], object] = lambda: None
        self.chunk = chunk
        self.reads = 0

    def ends(self, partitions: Collection[int]) -> dict[int, int]:
        if self.away:
            raise TransientError("Kafka", "away, for the test")
        return {p: len(self.log[p]) for p in partitions}

    def reader(self) -> StoreChangelogReader:
        self.reads += 1
        return _Reader(self)

    def last(self, partition: int = 0) -> dict[bytes, bytes | None]:
        """What compaction would keep."""
        return dict(self.log[partition])


class _Reader(StoreChangelogReader):
    def __init__(self, changelog: MemoryChangelog) -> None:
        self._changelog = changelog
        self._next: dict[int, int] = {}

    def start(self, starts: Mapping[int, int]) -> None:
        self._next = dict(starts)

    def read(self, most: int, wait: float) -> tuple[dict[int, ChangelogChunk], dict[int, int]]:
        self._changelog.before_chunk()
        if self._changelog.away:
            raise TransientError("Kafka", "away, for the test")
        found, ended = {}, {}
        for partition, begin in self._next.items():
            log = self._changelog.log[partition]
            records = log[begin : begin + min(most, self._changelog.chunk)]
            if records:
                self._next[partition] = begin + len(records)
                found[partition] = ChangelogChunk(records, begin + len(records) - 1)
            if begin + len(records) == len(log):
                ended[partition] = len(log)
        if not found:
            time.sleep(min(wait, 0.01))
        return found, ended

    def close(self) -> None:
        pass


class ChangelogRecordProducer:
    """Writes to a memory changelog.

    Attributes:
        survivors: the next call writes only this many messages, and fails; None = all, and it does not.
        sent: all that was written.
    """

    def __init__(self, changelog: MemoryChangelog) -> None:
        self._changelog = changelog
        self.survivors: int | None = None
        self.sent: list[Output] = []

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        survivors, self.survivors = self.survivors, None
        offsets = []
        for output in outputs[:survivors]:
            assert output.partition is not None and output.key is not None
            log = self._changelog.log[output.partition]
            log.append((output.key, output.value))
            offsets.append(len(log) - 1)
            self.sent.append(output)
        if survivors is not None:
            raise TransientError("Kafka", "cut off, for the test")
        return offsets
