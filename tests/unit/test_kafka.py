"""Requests to Kafka through a client that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

import streams.kafka
from configs.loader import load_worker
from streams.kafka import AdminRequests


class _Client:
    """Answers a question about partitions with what it believes, or with errors."""

    def __init__(self, answer: int | KafkaError) -> None:
        self.answer = answer

    def list_topics(self, topic: str, timeout: float) -> None:
        assert topic == "clicks" and timeout > 0

    def ends(self, partitions: list[int], request_timeout: float) -> Mapping[int, Future[int]]:
        assert request_timeout > 0
        return {partition: self._future() for partition in partitions}

    def _future(self) -> Future[int]:
        future: Future[int] = Future()
        if isinstance(self.answer, KafkaError):
            future.set_exception(KafkaException(self.answer))
        else:
            future.set_result(self.answer)
        return future


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[_Client]:
    """Those that will be made, the next one last."""
    waiting: list[_Client] = []

    def make(_kafka: Any) -> _Client:
        return waiting.pop()

    monkeypatch.setattr(streams.kafka, "admin", make)
    return waiting


def test_one_client_is_kept(clients: list[_Client]) -> None:
    clients.append(_Client(7))
    requests = AdminRequests(load_worker().kafka, "clicks")
    assert requests.ask(_Client.ends, [0, 1]) == {0: 7, 1: 7}
    assert requests.ask(_Client.ends, [1]) == {1: 7}


@pytest.mark.parametrize("code", [KafkaError.FENCED_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_a_client_that_believes_in_an_old_leader_is_replaced(clients: list[_Client], code: int) -> None:
    clients += [_Client(8), _Client(KafkaError(code))]
    requests = AdminRequests(load_worker().kafka, "clicks")
    with pytest.raises(KafkaException):
        requests.ask(_Client.ends, [0])
    assert requests.ask(_Client.ends, [0]) == {0: 8}


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT])
def test_a_client_whose_broker_is_away_is_kept(clients: list[_Client], code: int) -> None:
    client = _Client(KafkaError(code))
    clients.append(client)
    requests = AdminRequests(load_worker().kafka, "clicks")
    for _ in range(2):
        with pytest.raises(KafkaException):
            requests.ask(_Client.ends, [0])
    client.answer = 9
    assert requests.ask(_Client.ends, [0]) == {0: 9}
