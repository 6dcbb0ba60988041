"""Dead letters that cannot be replayed, and the reasons that the command gives."""

from __future__ import annotations

from collections.abc import Mapping

from streams.messages.dead_letters import StoredDeadLetter, replay_output
from streams.ports import Message
from streams.tools.dead_letters_replay import _obstacle, _Topic
from tests.unit.fakes import stored_dead_letter

CLICKS = _Topic(10_000, partitions=4)


def _fault(dead_letter: StoredDeadLetter, topics: Mapping[str, _Topic], partition: int | None = None) -> str:
    return _obstacle(dead_letter, replay_output(dead_letter, partition), topics) or ""


def test_a_dead_letter_that_its_topic_cannot_take_is_refused_with_the_reason() -> None:
    dead_letter = stored_dead_letter(Message("clicks", 3, 991, b"42", b"x" * 5000))
    assert _fault(dead_letter, {"clicks": CLICKS}) == _fault(dead_letter, {"clicks": CLICKS}, partition=3) == ""
    assert "accepts 4,000" in _fault(dead_letter, {"clicks": _Topic(4000, partitions=4)})
    assert "no topic clicks" in _fault(dead_letter, {"items": CLICKS})
    assert "no partition 4" in _fault(dead_letter, {"clicks": CLICKS}, partition=4)


def test_a_dead_letter_without_its_bytes_is_refused() -> None:
    dead_letter = stored_dead_letter(Message("clicks", 3, 991, b"42", b"x" * 98), max_bytes=99)
    assert "too large to keep" in _fault(dead_letter, {"clicks": CLICKS})
