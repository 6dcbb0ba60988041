"""The selection of dead letters."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest

from streams.messages.dead_letters import MessageRef
from streams.ports import Message
from streams.tools.dead_letters import Selection, parse_time
from tests.unit.fakes import stored_dead_letter


def test_times_are_iso_times_or_ages() -> None:
    assert parse_time("30s", 1000.0) == 970
    assert parse_time("2h", 100_000.0) == 92_800
    assert parse_time("1d", 100_000.0) == 13_600
    assert parse_time("1970-01-01T00:01:00Z", 0.0) == parse_time("1970-01-01T01:01:00+01:00", 0.0) == 60
    local = datetime(2026, 5, 1, 12, 0).astimezone(timezone.utc)
    assert parse_time("2026-05-01T12:00", 0.0) == local.timestamp()
    for text in ("", "yesterday", "2w", "-1h"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_time(text, time.time())


def test_a_dead_letter_must_meet_all_conditions_of_a_selection() -> None:
    dead_letter = stored_dead_letter(Message("clicks", 3, 991, b"42", b"{"), now=500.0)
    assert dead_letter in Selection()
    assert dead_letter in Selection(["not_json", "bad_key"], ["clicks"], 500.0, 500.0, [dead_letter.source])
    assert dead_letter in Selection(refs=[dead_letter.kept_at])
    for other in (
        Selection(reasons=["bad_key"]),
        Selection(topics=["items"]),
        Selection(since=500.1),
        Selection(until=499.9),
        Selection(refs=[MessageRef("clicks", 3, 992)]),
    ):
        assert dead_letter not in other
