"""The changelog topic of the histories, as workers read it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage

from configs.errors import FatalError, TransientError
from configs.schema import Kafka
from streams.history import CorruptHistoryError
from streams.kafka.client import ADMIN_TIMEOUT, fault, harmless, reader
from streams.kafka.offsets import Positions

#: Most records read, and written to the store, at a time. Larger batches are no faster.
_BATCH = 10_000
#: Kilobytes of records that the client reads ahead.
_READ_AHEAD = 16 * 1024
#: Seconds to wait for a batch to fill.
_WAIT = 0.1


@dataclass(frozen=True, slots=True)
class ChangelogChunk:
    """Some successive records of one partition.

    Attributes:
        records: user keys and history records, None = remove.
        reached: offset of the last one.
    """

    records: Sequence[tuple[bytes, bytes | None]]
    reached: int


class StoreChangelogReader:
    """Reads partitions of the changelog from given offsets. Joins no consumer group. For one thread."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._topic = topic
        settings = {
            # Offsets that Kafka does not have (any more): reading a record again changes nothing.
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": _READ_AHEAD,
        }
        self._consumer = Consumer(
            reader(kafka, "mindstream-restore", **settings), logger=logging.getLogger("mindstream.kafka")
        )

    def start(self, starts: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in starts.items()])

    def read(self, most: int, wait: float) -> tuple[dict[int, ChangelogChunk], dict[int, int]]:
        """Wait up to `wait` seconds for `most` records.

        Returns:
            Records by partition; and for partitions that were read to their end, the offset after it.

        Raises:
            TransientError: Kafka is away.
        """
        runs: dict[int, list[RawMessage]] = {}
        ended: dict[int, int] = {}
        try:
            for message in self._consumer.consume(most, wait):
                error = message.error()
                if error is None:
                    runs.setdefault(_int(message.partition()), []).append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended[_int(message.partition())] = _int(message.offset())
                elif not harmless(error):
                    raise fault(error, self._topic)
        except KafkaException as error:
            raise fault(error.args[0]) from None
        return {partition: _chunk(run) for partition, run in runs.items()}, ended

    def close(self) -> None:
        self._consumer.close()


def _chunk(run: Sequence[RawMessage]) -> ChangelogChunk:
    records = [(message.key(), message.value()) for message in run]
    return ChangelogChunk(cast("list[tuple[bytes, bytes | None]]", records), _int(run[-1].offset()))


def _int(value: int | None) -> int:
    assert value is not None  # the types leave it open
    return value


class Changelog:
    """The changelog topic of the histories, as workers read it.

    Args:
        kafka: the cluster.
        topic: the topic's name.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.topic = topic
        self._kafka = kafka
        self._positions = Positions(kafka, topic)

    def ends(self, partitions: Collection[int]) -> dict[int, int]:
        """Partition → the offset after its last record.

        Raises:
            TransientError: Kafka is away.
        """
        return self._positions.ends(partitions)

    def reader(self) -> StoreChangelogReader:
        return StoreChangelogReader(self._kafka, self.topic)

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[tuple[int, ChangelogChunk]]:
        """Partitions' records from their start up to their end, as they come.

        Raises:
            TransientError: Kafka is away or does not answer for 30 seconds.
        """
        with closing(self.reader()) as reader:
            reader.start(starts)
            left = {p: ends[p] - start for p, start in starts.items()}  # at most: compaction leaves gaps
            heard = time.monotonic()
            while left:
                chunks, ended = reader.read(min(_BATCH, sum(left.values())), _WAIT)
                for partition, chunk in chunks.items():
                    if partition in left:
                        yield partition, chunk
                        left[partition] = ends[partition] - 1 - chunk.reached
                left = {p: n for p, n in left.items() if n > 0 and ended.get(p, -1) < ends[p]}
                if chunks or ended:
                    heard = time.monotonic()
                elif time.monotonic() - heard > 3 * ADMIN_TIMEOUT:
                    raise TransientError("Kafka", f"{self.topic}: nothing for {3 * ADMIN_TIMEOUT:.0f} s before its end")


def listed(partitions: Collection[int]) -> str:
    """For the log."""
    return f"partitions {', '.join(map(str, sorted(partitions))) or 'none'}"


def corrupt(topic: str, error: CorruptHistoryError) -> FatalError:
    """What an operator is told about a changelog that cannot be read."""
    return FatalError(
        f"topic {topic} holds something that is no history of this version: {error}. Run the version that wrote it, or "
        "begin anew under another worker.group"
    )
