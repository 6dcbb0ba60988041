"""Reading partitions from given offsets on."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

import streams.kafka.partition_reader
from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from streams.kafka.partition_reader import PartitionChunk, PartitionReader


class _Event:
    """A message, or librdkafka's error in its place."""

    def __init__(self, partition: int, offset: int, error: int | None = None) -> None:
        self._partition, self._offset = partition, offset
        self._error = None if error is None else KafkaError(error)

    def error(self) -> KafkaError | None:
        return self._error

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_767_225_600_000 + self._offset

    def key(self) -> bytes:
        return b"%d" % self._partition

    def value(self) -> bytes | None:
        return None if self._offset == 0 else b"%d" % self._offset


class _Consumer:
    events: list[_Event]
    assigned: list[TopicPartition]

    def assign(self, assigned: list[TopicPartition]) -> None:
        self.assigned = assigned

    def consume(self, max_messages: int, timeout_s: float) -> list[_Event]:
        return self.events[:max_messages]


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> _Consumer:
    made = _Consumer()

    def create(settings: dict[str, Any], **_: Any) -> _Consumer:
        assert settings["enable.partition.eof"] is True
        assert settings["auto.offset.reset"] == "earliest"
        return made

    monkeypatch.setattr(streams.kafka.partition_reader, "Consumer", create)
    return made


def _reader() -> PartitionReader:
    return PartitionReader(load_worker().kafka, "changelog")


def test_chunks_and_ends_by_partition(consumer: _Consumer) -> None:
    eof = KafkaError._PARTITION_EOF
    consumer.events = [_Event(0, 0), _Event(1, 5), _Event(0, 3), _Event(2, 7, eof), _Event(0, 4, eof)]
    reader = _reader()
    reader.start({0: 0, 1: 5, 2: 7})
    assert [(tp.partition, tp.offset) for tp in consumer.assigned] == [(0, 0), (1, 5), (2, 7)]
    chunks, ends = reader.read(10, 0.1)
    assert chunks == {0: PartitionChunk([(b"0", None), (b"0", b"3")], [0, 3]), 1: PartitionChunk([(b"1", b"5")], [5])}
    assert ends == {2: 7, 0: 4}
    chunks, _ = PartitionReader(load_worker().kafka, "changelog", timestamps=True).read(1, 0.1)
    assert chunks == {0: PartitionChunk([(b"0", None)], [0], [1_767_225_600.0])}


def test_missing_group_rights_are_ignored_and_missing_topic_rights_are_fatal(consumer: _Consumer) -> None:
    consumer.events = [_Event(0, -1, KafkaError.GROUP_AUTHORIZATION_FAILED)]
    assert _reader().read(10, 0.1) == ({}, {})
    consumer.events = [_Event(0, -1, KafkaError.TOPIC_AUTHORIZATION_FAILED)]
    with pytest.raises(FatalError, match="changelog"):
        _reader().read(10, 0.1)


def test_an_unavailable_broker_is_a_transient_error(consumer: _Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    def consume(_max_messages: int, _timeout_s: float) -> list[_Event]:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    monkeypatch.setattr(consumer, "consume", consume)
    with pytest.raises(TransientError):
        _reader().read(10, 0.1)
