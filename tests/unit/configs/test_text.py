"""Words of messages."""

from __future__ import annotations

from configs.text import count


def test_one_is_singular_and_thousands_are_separated() -> None:
    assert [count(number, "click") for number in (0, 1, 2, 1000)] == ["0 clicks", "1 click", "2 clicks", "1,000 clicks"]
