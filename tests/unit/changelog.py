"""A changelog in memory, as `streams.state.restore` reads it, and a producer that writes to it and fails on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.errors import TransientError
from streams.history import History
from streams.kafka.partition_reader import PartitionChunk, PartitionReader
from streams.kafka.topics import TopicIdentities, TopicIdentity
from streams.ports import Output
from streams.state.changelog import Changelog


def record(fence: int, partition: int = 0) -> bytes:
    """Return the history record of a user whose clicks go up to this fence."""
    return History(partition, fence, np.array([fence])).to_bytes()


def damage_first_block(database: Path) -> None:
    """Overwrite the lowest keys of a database that is closed. It can be opened, and the other keys be read."""
    (file,) = database.glob("*.sst")
    content = file.read_bytes()
    file.write_bytes(bytes(100) + content[100:])


class MemoryChangelog(Changelog):
    """Records in lists.

    Attributes:
        log: partition → (key, value), at their offsets.
        unavailable: Kafka does not answer.
        before_chunk: called before each chunk that is read.
        chunk_size: most records in one.
        readers: number of readers created.
        renewed: number of times that the client for offsets was renewed.
        stale: number of the last records that the broker does not know of yet.
        written_at: time of the record at offset 0, in seconds since 1970; the others follow one a second.
    """

    def __init__(self, partitions: int = 1, chunk_size: int = 10_000) -> None:
        self.topic = "changelog"
        self.log: dict[int, list[tuple[bytes | None, bytes | None]]] = {p: [] for p in range(partitions)}
        self.unavailable = False
        self.before_chunk: Callable[[], object] = lambda: None
        self.chunk_size = chunk_size
        self.readers = self.renewed = self.stale = 0
        self.written_at = 1_767_225_600.0

    def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        if self.unavailable:
            raise TransientError("Kafka", "unavailable, for the test")
        return {p: max(0, len(self.log[p]) - self.stale) for p in partitions}

    def renew(self) -> None:
        self.renewed += 1

    def reader(self, timestamps: bool = False) -> PartitionReader:
        self.readers += 1
        return _Reader(self, timestamps)

    def compacted(self, partition: int = 0) -> dict[bytes, bytes | None]:
        """Return the last value of each key."""
        return {key: value for key, value in self.log[partition] if key is not None}


class MemoryIdentities(TopicIdentities):
    """The identity of a memory changelog; `id` can be changed, as if the topic was deleted and created again."""

    def __init__(self, changelog: MemoryChangelog) -> None:
        self._changelog = changelog
        self.id = "M5v2LkzXQ7Oj+pPAzW3kRg"

    def now(self) -> dict[str, TopicIdentity]:
        return {self._changelog.topic: TopicIdentity(self.id, len(self._changelog.log))}


class _Reader(PartitionReader):
    def __init__(self, changelog: MemoryChangelog, timestamps: bool) -> None:
        self._changelog = changelog
        self._timestamps = timestamps
        self._next: dict[int, int] = {}

    def start(self, starts: Mapping[int, int]) -> None:
        self._next = dict(starts)

    def read(self, max_messages: int, timeout_s: float) -> tuple[dict[int, PartitionChunk], dict[int, int]]:
        self._changelog.before_chunk()
        if self._changelog.unavailable:
            raise TransientError("Kafka", "unavailable, for the test")
        chunks, ended = {}, {}
        for partition, begin in self._next.items():
            log = self._changelog.log[partition]
            records = log[begin : begin + min(max_messages, self._changelog.chunk_size)]
            if records:
                self._next[partition] = begin + len(records)
                offsets = range(begin, begin + len(records))
                times = [self._changelog.written_at + offset for offset in offsets] if self._timestamps else ()
                chunks[partition] = PartitionChunk(records, offsets, times)
            if begin + len(records) == len(log):
                ended[partition] = len(log)
        if not chunks:
            time.sleep(min(timeout_s, 0.01))
        return chunks, ended

    def close(self) -> None:
        pass


class ChangelogRecordProducer:
    """Writes to a memory changelog.

    Attributes:
        survivors: the next call writes only this many messages, and fails; None = it writes all, and succeeds.
        sent: all messages that were written.
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
