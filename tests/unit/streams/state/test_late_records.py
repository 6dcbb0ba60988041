"""History records that are written again after a send that took long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from configs.errors import TransientError
from streams.ports import Output
from streams.state.late_records import LateRecords

RECORD, OTHER = Output("changelog", b"a", b"record", 1), Output("changelog", b"b", b"record", 1)
ANSWER = Output("recommendations", b"a", b"answer")


class _Producer:
    """Each call takes the next of the given times; a negative one makes it fail after that time."""

    def __init__(self, *seconds: float) -> None:
        self.sent: list[list[Output]] = []
        self.now = 0.0
        self._seconds = iter(seconds)

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        produced()
        self.sent.append(list(outputs))
        seconds = next(self._seconds, 0.0)
        self.now += abs(seconds)
        if seconds < 0:
            raise TransientError("Kafka", "no delivery report")
        return list(range(len(outputs)))


def _late_records(producer: _Producer) -> LateRecords:
    return LateRecords(producer, "changelog", limit_s=3.0, clock=lambda: producer.now)


def test_records_are_sent_once_within_the_limit() -> None:
    producer = _Producer(3.0)
    assert _late_records(producer).send([RECORD, ANSWER]) == [0, 1]
    assert producer.sent == [[RECORD, ANSWER]]


def test_records_are_sent_again_after_a_pause() -> None:
    producer = _Producer(3.1)
    records = _late_records(producer)
    assert records.send([RECORD, ANSWER]) == [0, 1], "the offsets of the first time"
    records.send([OTHER])
    assert producer.sent == [[RECORD, ANSWER], [RECORD], [OTHER]]


def test_records_of_calls_that_fail_are_sent_again_with_the_next_one() -> None:
    producer = _Producer(-4.0, 0.0, -1.0)
    records = _late_records(producer)
    with pytest.raises(TransientError):
        records.send([RECORD, ANSWER])
    with pytest.raises(TransientError):  # sending them again fails
        records.send([OTHER])
    records.send([OTHER])
    assert producer.sent == [[RECORD, ANSWER], [OTHER], [RECORD], [OTHER], [RECORD]]
