"""The audit of the click topic; what it finds is tested with the audit as a whole, too."""

from __future__ import annotations

from streams.partitioning import KeyPartitions
from streams.tools.audit_clicks import KeptDeadLetter, _misplaced, audit_clicks
from tests.unit.fakes import click_message

ANY = KeyPartitions("any", 1)


def test_clicks_are_grouped_by_partition_and_key_in_order() -> None:
    clicks = [
        click_message(3, 7, 1),
        click_message(4, "x", 2),
        click_message(6, 7, 5),
        click_message(3, 7, 9, partition=1),
    ]
    found = audit_clicks(clicks, {}, {0: 3, 1: 3}, {0: 7, 1: 4}, ANY)
    assert found.by_user == {(0, b"7"): [(3, 1), (6, 5)], (0, b"x"): [(4, 2)], (1, b"7"): [(3, 9)]}
    assert (found.count, found.lag, found.users_split) == (4, 0, 1)
    assert not found.complete(0)


def test_a_dead_letter_of_a_click_that_retention_has_deleted_is_not_judged() -> None:
    dead_letters = {(0, 1): KeptDeadLetter("not_json", 1), (0, 9): KeptDeadLetter("not_json", 1)}
    found = audit_clicks([click_message(3, 7, 1)], dead_letters, {0: 3}, {0: 4}, ANY)
    assert found.letters_unfounded == 1


def test_a_click_in_another_partition_than_its_keys_is_a_dead_letter_or_a_finding() -> None:
    partitions = KeyPartitions("murmur2", 4)
    right = next(n for n in range(4) if not _misplaced(b"7", n, partitions))
    clicks = [click_message(0, 7, 1, partition=right), click_message(0, 7, 2, partition=(right + 1) % 4)]
    begins, committed = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 1)
    found = audit_clicks(clicks, {}, begins, committed, partitions)
    assert (found.misplaced, found.users_split, found.unreadable) == (1, 1, set())
    kept = KeptDeadLetter("wrong_partition", None)
    found = audit_clicks(clicks, {((right + 1) % 4, 0): kept}, begins, committed, partitions)
    assert (found.misplaced, found.users_split, len(found.unreadable), len(found.by_user)) == (0, 0, 1, 1)
    assert found.letters_unfounded == 0
    found = audit_clicks(clicks, {}, begins, committed, partitions, retained_since=1.0)
    assert (found.misplaced, len(found.unreadable)) == (0, 1), "its dead letter may have been deleted"
