"""Words of messages for people."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Return `1 click`, `2 clicks`, `1,000 clicks`; nouns with another plural have to be written out."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
