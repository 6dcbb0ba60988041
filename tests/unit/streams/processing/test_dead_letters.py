"""Dead letters of an agent: messages, counts, and one log line for each reason."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from streams.messages.dead_letters import DeadLetterTopic
from streams.metrics import ItemMetrics
from streams.ports import DeadLetter, Message
from streams.processing.dead_letters import DeadLetters


def test_the_first_dead_letter_of_each_reason_is_a_warning_and_all_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = ItemMetrics(CollectorRegistry())
    dead_letters = DeadLetters(DeadLetterTopic("dead-letters", 10**6), metrics)

    def two(offset: int) -> list[DeadLetter]:
        message = Message("items", 3, offset, b"7", b"{")
        return [DeadLetter(message, "not_json", "broken"), DeadLetter(message, "wrong_norm", "has norm 100")]

    assert [o.topic for o in dead_letters.outputs(two(5), 12.5)] == ["dead-letters"] * 2
    assert not caplog.records, "nothing is acknowledged yet"
    for offset in (5, 6, 7):
        dead_letters.count(two(offset))
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 2
    for line, parts in zip(lines, [("not_json", "broken"), ("wrong_norm", "has norm 100")], strict=True):
        assert "items/3/5" in line and all(part in line for part in parts)
        assert "python -m streams deadletters show items/3/5" in line
    assert metrics.dead_letters.labels("not_json")._value.get() == 3
    assert metrics.dead_letters.labels("wrong_norm")._value.get() == 3
