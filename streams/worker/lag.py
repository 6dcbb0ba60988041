"""The lag of a consumer group, read without the worker's consumer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from typing import NamedTuple, Protocol

from prometheus_client import Gauge

from configs.errors import FatalError, TransientError
from configs.schema import Kafka
from streams.kafka.offsets import TopicOffsets, assigned_to_others
from streams.kafka.reading import read_to_end

#: Most questions whether a partition holds messages at one time: each reads from Kafka with a client of its own.
_MAX_QUESTIONS = 4


class PartitionLag(NamedTuple):
    """The position of a group in a partition: the offset to read next, and the offset after the newest message."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        """The number of messages that the group has not committed."""
        return max(0, self.end - self.committed)


class LagReader(Protocol):
    """A view of one consumer group on one topic that does not use the worker's consumer.

    All methods raise `TransientError` when Kafka does not respond.
    """

    def partition_lags(self) -> Mapping[int, PartitionLag]:
        """Return the lag of all partitions of the topic."""
        ...

    def readable(self, partition: int, offset: int) -> bool:
        """Return whether there is a message at or after the offset."""
        ...

    def owned_by_others(self) -> Collection[int]:
        """Return the partitions that other members of the group own."""
        ...


class LagGauge:
    """Shows the lag of partitions; offsets at the end that hold no messages do not count.

    Transactions and compaction leave such offsets. Whether they hold messages is asked only when the lag has not
    changed since the last call, and then only once.

    Args:
        reader: tells whether there are messages.
        gauge: the metric, with the label `partition`.
    """

    def __init__(self, reader: LagReader, gauge: Gauge) -> None:
        self._reader = reader
        self._gauge = gauge
        self._last: dict[int, PartitionLag] = {}
        self._readable: dict[int, tuple[PartitionLag, bool]] = {}  # partition → the answer, and for which lag

    def show(self, lags: Mapping[int, PartitionLag]) -> None:
        """Show the lag of these partitions, and of no others.

        Raises:
            TransientError: Kafka does not respond.
        """
        for partition in self._last.keys() - lags.keys():
            self._gauge.remove(partition)
        last, self._last = self._last, dict(lags)
        self._readable = {p: answer for p, answer in self._readable.items() if answer[0] == lags.get(p)}
        questions = [p for p in lags if lags[p].lag and lags[p] == last.get(p) and p not in self._readable]
        for partition, lag in lags.items():
            shown = lag.lag if self._readable.get(partition, (lag, True))[1] else 0
            self._gauge.labels(partition).set(shown)
        for partition in questions[:_MAX_QUESTIONS]:
            lag = lags[partition]
            self._readable[partition] = lag, self._reader.readable(partition, lag.committed)
            if not self._readable[partition][1]:
                self._gauge.labels(partition).set(0)


class KafkaLag:
    """`LagReader` with confluent-kafka. For one thread.

    Args:
        kafka: the cluster.
        group: the consumer group.
        topic: the topic that the group reads.
        partitions: number of the topic's partitions.
        client_id: client id of this process in the group.
    """

    def __init__(self, kafka: Kafka, group: str, topic: str, partitions: int, client_id: str) -> None:
        self._kafka = kafka
        self._group = group
        self._topic = topic
        self._partitions = range(partitions)
        self._client_id = client_id
        self._offsets = TopicOffsets(kafka, topic, group)

    def partition_lags(self) -> Mapping[int, PartitionLag]:
        """See `LagReader.partition_lags`."""
        try:
            committed, ends = self._offsets.committed(self._partitions), self._offsets.end_offsets(self._partitions)
            begins = self._offsets.beginning_offsets([p for p, offset in committed.items() if offset is None])
        except FatalError as error:
            raise TransientError("Kafka", str(error)) from None  # a refused watchdog does not end the worker
        return {p: PartitionLag(begins.get(p, committed[p] or 0), end) for p, end in ends.items()}

    def readable(self, partition: int, offset: int) -> bool:
        """See `LagReader.readable`."""
        try:
            with closing(read_to_end(self._kafka, self._topic, {partition: offset})) as records:
                return next(records, None) is not None
        except FatalError as error:
            raise TransientError("Kafka", str(error)) from None

    def owned_by_others(self) -> Collection[int]:
        """See `LagReader.owned_by_others`."""
        return assigned_to_others(self._kafka, self._group, self._topic, self._client_id)
