"""Compacted topics of which there are local copies, and the changelog of the histories among them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing

from configs.errors import TransientError
from configs.schema import Kafka
from streams.kafka.offsets import TopicOffsets
from streams.kafka.partition_reader import PartitionChunk, PartitionReader
from streams.kafka.reading import SILENCE_TIMEOUT_S

#: Most records read, and written to the store, at a time. Larger chunks are no faster.
_MAX_RECORDS = 10_000
#: Seconds to wait for a chunk to fill.
_WAIT_S = 0.1


class CompactedTopic:
    """A topic in which the newest message of a key replaces the older ones; None as value removes the key.

    Args:
        kafka: the cluster.
        topic: name of the topic.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.topic = topic
        self._kafka = kafka
        self._offsets = TopicOffsets(kafka, topic)

    def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Return partition → the offset after its last record.

        Raises:
            TransientError: Kafka is unavailable.
        """
        return self._offsets.end_offsets(partitions)

    def renew(self) -> None:
        """Ask for offsets through a new client from now on."""
        self._offsets.renew()

    def reader(self, timestamps: bool = False) -> PartitionReader:
        """Return a new reader. See `streams.kafka.partition_reader`."""
        return PartitionReader(self._kafka, self.topic, timestamps)


class Changelog(CompactedTopic):
    """The changelog topic of the histories. The key of a record is the user's."""

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[tuple[int, PartitionChunk]]:
        """Yield (partition, chunk) of the records from each partition's start offset up to its end offset.

        Raises:
            TransientError: Kafka is unavailable, or sends nothing for 30 seconds.
        """
        with closing(self.reader()) as reader:
            reader.start(starts)
            remaining = {p: ends[p] - start for p, start in starts.items()}  # at most: compaction leaves gaps
            last_answer_at = time.monotonic()
            while remaining:
                chunks, ended = reader.read(min(_MAX_RECORDS, sum(remaining.values())), _WAIT_S)
                for partition, chunk in chunks.items():
                    if partition in remaining:
                        yield partition, chunk
                        remaining[partition] = ends[partition] - 1 - chunk.last_offset
                remaining = {p: n for p, n in remaining.items() if n > 0 and ended.get(p, -1) < ends[p]}
                if chunks or ended:
                    last_answer_at = time.monotonic()
                elif time.monotonic() - last_answer_at > SILENCE_TIMEOUT_S:
                    raise TransientError(
                        "Kafka", f"{self.topic}: no message for {SILENCE_TIMEOUT_S:.0f} s before its end"
                    )

    def lost_end_text(self, partition: int, end: int, reached: int) -> str:
        """Return the text about an end offset that is lower than one that the partition has had, with the remedy."""
        group = self.topic.removesuffix("-history-changelog")  # the topic is named after its consumer group
        return (
            f"topic {self.topic} ends at offset {end} of partition {partition}, but has held records up to {reached}: "
            "the broker is not up to date, or Kafka has lost the end of the topic. If this lasts, records are lost: "
            "stop all click workers, have the clicks read again from before the loss (kafka-consumer-groups --group "
            f"{group} --all-topics --reset-offsets --to-datetime … or --to-earliest --execute), and start them again: "
            "fences skip the clicks that histories hold"
        )


def partitions_text(partitions: Collection[int]) -> str:
    """Return "partitions 0, 1" for log lines."""
    return f"partitions {', '.join(map(str, sorted(partitions))) or 'none'}"
