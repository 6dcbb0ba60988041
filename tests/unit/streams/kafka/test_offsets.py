"""Questions to Kafka through a consumer that is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

import streams.kafka.offsets
from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from streams.kafka.offsets import Positions


class _Consumer:
    """Answers with what it believes of all partitions, or with errors."""

    def __init__(self, end: int | KafkaError, *, about_place: bool = False) -> None:
        self.end = end
        self.about_place = about_place
        self.closed = False

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [self._answer(place, {OFFSET_END: 0, OFFSET_BEGINNING: -5}[place.offset]) for place in places]

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [self._answer(place, -2 if place.partition else -1008) for place in places]

    def _answer(self, place: TopicPartition, more: int) -> TopicPartition:
        if isinstance(self.end, int):
            return TopicPartition(place.topic, place.partition, self.end + more)
        if not self.about_place:
            raise KafkaException(self.end)
        refused: Any = SimpleNamespace(partition=place.partition, offset=-1001, error=self.end)
        return cast("TopicPartition", refused)

    def consume(self, most: int, timeout: float) -> list[Any]:
        assert most > 0 and timeout == 0
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[_Consumer]:
    """Those that will be made, the next one last."""
    waiting: list[_Consumer] = []

    def make(settings: dict[str, Any], **_: Any) -> _Consumer:
        assert settings["group.id"] == "shop" and settings["enable.auto.commit"] is False
        assert settings["isolation.level"] == "read_uncommitted"
        return waiting.pop()

    # Its methods are called unbound.
    make.offsets_for_times, make.committed = _Consumer.offsets_for_times, _Consumer.committed  # type: ignore[attr-defined]
    monkeypatch.setattr(streams.kafka.offsets, "Consumer", make)
    return waiting


def _positions() -> Positions:
    return Positions(load_worker().kafka, "clicks", "shop")


def test_one_consumer_answers_all(consumers: list[_Consumer]) -> None:
    consumers.append(_Consumer(7))
    positions = _positions()
    assert positions.ends([0, 1]) == {0: 7, 1: 7}
    assert positions.begins([1]) == {1: 2}
    assert positions.committed([0, 1]) == {0: None, 1: 5}
    assert positions.ends([]) == {}


@pytest.mark.parametrize("about_place", [True, False])
@pytest.mark.parametrize("code", [KafkaError.FENCED_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_a_consumer_that_believes_in_an_old_leader_is_replaced(
    consumers: list[_Consumer], code: int, about_place: bool
) -> None:
    old = _Consumer(KafkaError(code), about_place=about_place)
    consumers += [_Consumer(8), old]
    positions = _positions()
    with pytest.raises(TransientError):
        positions.ends([0])
    assert old.closed
    assert positions.ends([0]) == {0: 8}


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN])
def test_a_consumer_whose_broker_is_away_is_kept(consumers: list[_Consumer], code: int) -> None:
    consumer = _Consumer(KafkaError(code))
    consumers.append(consumer)
    positions = _positions()
    for _ in range(2):
        with pytest.raises(TransientError):
            positions.ends([0])
    consumer.end = 9
    assert positions.ends([0]) == {0: 9}


def test_lost_rights_are_no_fault_that_passes(consumers: list[_Consumer]) -> None:
    consumers.append(_Consumer(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(FatalError, match="clicks"):
        _positions().ends([0])
