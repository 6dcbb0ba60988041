"""The audit of the click topic; what it finds is tested with the audit as a whole, too."""

from __future__ import annotations

from streams.tools.audit_clicks import KeptDeadLetter, audit_clicks
from tests.unit.fakes import click_message


def test_clicks_are_grouped_by_partition_and_key_in_order() -> None:
    clicks = [
        click_message(3, 7, 1),
        click_message(4, "x", 2),
        click_message(6, 7, 5),
        click_message(3, 7, 9, partition=1),
    ]
    found = audit_clicks(clicks, {}, {0: 3, 1: 3}, {0: 7, 1: 4})
    assert found.by_user == {(0, b"7"): [(3, 1), (6, 5)], (0, b"x"): [(4, 2)], (1, b"7"): [(3, 9)]}
    assert (found.count, found.lag, found.users_split) == (4, 0, 1)
    assert not found.complete(0)


def test_a_dead_letter_of_a_click_that_retention_has_deleted_is_not_judged() -> None:
    dead_letters = {(0, 1): KeptDeadLetter("not_json", 1), (0, 9): KeptDeadLetter("not_json", 1)}
    found = audit_clicks([click_message(3, 7, 1)], dead_letters, {0: 3}, {0: 4})
    assert found.letters_unfounded == 1
