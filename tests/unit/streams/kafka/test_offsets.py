"""Offsets of a topic: one consumer is kept, and replaced after a broker's error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

import streams.kafka.offsets
from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from streams.kafka.offsets import TopicOffsets, assigned_to_others, committed_topics
from streams.ports import Position


class _Consumer:
    """Answers every query with this offset, or with this error: of the request, or of each partition."""

    def __init__(self, end: int | KafkaError, *, per_partition: bool = False) -> None:
        self.end = end
        self.per_partition = per_partition
        self.closed = False

    def offsets_for_times(self, topic_partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [self._answer(asked, {OFFSET_END: 0, OFFSET_BEGINNING: -5}[asked.offset]) for asked in topic_partitions]

    def committed(self, topic_partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        answers = [self._answer(asked, -2 if asked.partition else -1008) for asked in topic_partitions]
        return [TopicPartition(a.topic, a.partition, a.offset, "beside it") for a in answers]

    def _answer(self, asked: TopicPartition, difference: int) -> TopicPartition:
        if isinstance(self.end, int):
            return TopicPartition(asked.topic, asked.partition, self.end + difference)
        if not self.per_partition:
            raise KafkaException(self.end)
        refused: Any = SimpleNamespace(partition=asked.partition, offset=-1001, error=self.end)
        return cast("TopicPartition", refused)

    def consume(self, most: int, timeout: float) -> list[Any]:
        assert most > 0 and timeout == 0
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[_Consumer]:
    """Consumers that will be created, the next one last."""
    upcoming: list[_Consumer] = []

    def make(settings: dict[str, Any], **_: Any) -> _Consumer:
        assert settings["group.id"] == "shop" and settings["enable.auto.commit"] is False
        assert settings["isolation.level"] == "read_uncommitted"
        return upcoming.pop()

    # The class's methods are called unbound.
    make.offsets_for_times, make.committed = _Consumer.offsets_for_times, _Consumer.committed  # type: ignore[attr-defined]
    monkeypatch.setattr(streams.kafka.offsets, "Consumer", make)
    return upcoming


def _offsets() -> TopicOffsets:
    return TopicOffsets(load_worker().kafka, "clicks", "shop")


def test_one_consumer_answers_all_queries(consumers: list[_Consumer]) -> None:
    consumers.append(_Consumer(7))
    offsets = _offsets()
    assert offsets.end_offsets([0, 1]) == {0: 7, 1: 7}
    assert offsets.beginning_offsets([1]) == {1: 2}
    assert offsets.committed([0, 1]) == {0: None, 1: 5}
    assert offsets.positions([0, 1]) == {0: None, 1: Position(5, "beside it")}
    assert offsets.end_offsets([]) == {}


@pytest.mark.parametrize("per_partition", [True, False])
@pytest.mark.parametrize("code", [KafkaError.FENCED_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_a_consumer_with_an_outdated_leader_is_replaced(
    consumers: list[_Consumer], code: int, per_partition: bool
) -> None:
    old = _Consumer(KafkaError(code), per_partition=per_partition)
    consumers += [_Consumer(8), old]
    offsets = _offsets()
    with pytest.raises(TransientError):
        offsets.end_offsets([0])
    assert old.closed
    assert offsets.end_offsets([0]) == {0: 8}


def test_a_consumer_is_renewed_on_demand(consumers: list[_Consumer]) -> None:
    old = _Consumer(7)
    consumers += [_Consumer(8), old]
    offsets = _offsets()
    offsets.renew()
    assert offsets.end_offsets([0]) == {0: 7}
    offsets.renew()
    assert old.closed
    assert offsets.end_offsets([0]) == {0: 8}


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN])
def test_a_consumer_whose_broker_is_unavailable_is_kept(consumers: list[_Consumer], code: int) -> None:
    consumer = _Consumer(KafkaError(code))
    consumers.append(consumer)
    offsets = _offsets()
    for _ in range(2):
        with pytest.raises(TransientError):
            offsets.end_offsets([0])
    consumer.end = 9
    assert offsets.end_offsets([0]) == {0: 9}


def test_missing_rights_are_fatal(consumers: list[_Consumer]) -> None:
    consumers.append(_Consumer(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(FatalError, match="clicks"):
        _offsets().end_offsets([0])


class _Admin:
    """An admin client that describes one group, or fails."""

    def __init__(self, members: list[Any] | KafkaError) -> None:
        self._members = members

    def describe_consumer_groups(self, groups: list[str], request_timeout: float) -> dict[str, Any]:
        return {groups[0]: self}

    def result(self) -> Any:
        if isinstance(self._members, KafkaError):
            raise KafkaException(self._members)
        return SimpleNamespace(members=self._members)


def _member(client_id: str, *assigned: tuple[str, int]) -> Any:
    topic_partitions = [TopicPartition(topic, partition) for topic, partition in assigned]
    return SimpleNamespace(client_id=client_id, assignment=SimpleNamespace(topic_partitions=topic_partitions))


def test_partitions_of_other_members(monkeypatch: pytest.MonkeyPatch) -> None:
    joining = SimpleNamespace(client_id="third", assignment=None)
    members = [_member("me", ("clicks", 0)), _member("other", ("clicks", 1), ("items", 2)), joining]
    monkeypatch.setattr(streams.kafka.offsets, "admin_client", lambda _: _Admin(members))
    assert assigned_to_others(load_worker().kafka, "shop", "clicks", "me") == {1}


def test_a_group_that_cannot_be_described_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    monkeypatch.setattr(streams.kafka.offsets, "admin_client", lambda _: _Admin(refused))
    with pytest.raises(TransientError):
        assigned_to_others(load_worker().kafka, "shop", "clicks", "me")


class _GroupAdmin:
    """An admin client that lists what a group has committed, or fails."""

    def __init__(self, committed: list[TopicPartition] | KafkaError) -> None:
        self._committed = committed

    def list_consumer_group_offsets(self, groups: list[Any], request_timeout: float) -> dict[str, Any]:
        return {groups[0].group_id: self}

    def result(self) -> Any:
        if isinstance(self._committed, KafkaError):
            raise KafkaException(self._committed)
        return SimpleNamespace(topic_partitions=self._committed)


def test_topics_on_which_a_group_has_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = [TopicPartition("a", 0, 5), TopicPartition("b", 0, 0), TopicPartition("c", 0, -1001)]
    answers: list[Any] = [KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), committed]
    monkeypatch.setattr(streams.kafka.offsets, "admin_client", lambda _: _GroupAdmin(answers.pop()))
    assert committed_topics(load_worker().kafka, "shop") == {"a", "b"}
    with pytest.raises(FatalError, match="shop"):
        committed_topics(load_worker().kafka, "shop")
