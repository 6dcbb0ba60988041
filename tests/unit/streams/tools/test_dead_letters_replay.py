"""Dead letters that cannot be replayed, and the reasons that the command gives."""

from __future__ import annotations

from streams.ports import Message
from streams.tools.dead_letters_replay import _obstacle
from tests.unit.fakes import stored_dead_letter


def test_a_dead_letter_that_its_topic_cannot_take_is_refused_with_the_reason() -> None:
    dead_letter = stored_dead_letter(Message("clicks", 3, 991, b"42", b"x" * 5000))
    assert _obstacle(dead_letter, {"clicks": 10_000}) is None
    assert "accepts 4,000" in (_obstacle(dead_letter, {"clicks": 4000}) or "")
    assert "no topic clicks" in (_obstacle(dead_letter, {"items": 4000}) or "")


def test_a_dead_letter_without_its_bytes_is_refused() -> None:
    dead_letter = stored_dead_letter(Message("clicks", 3, 991, b"42", b"x" * 98), max_bytes=99)
    assert "too large to keep" in (_obstacle(dead_letter, {"clicks": 10_000}) or "")
