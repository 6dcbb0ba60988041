"""Users who wait for vectors: who is tried when, and who is forgotten."""

from __future__ import annotations

import math

from streams.messages.clicks import Click
from streams.processing.awaited import WAITS_S, AwaitingUsers
from streams.processing.click_batch import UserClicks


def _user(key: str, *clicks: tuple[int, int], partition: int = 0) -> UserClicks:
    return UserClicks(partition, key.encode(), Click(key, clicks[-1][1], 2e8), list(clicks))


def test_only_users_who_clicked_unknown_items_wait() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5), (1, 6)), _user("b", (2, 7))], {5, 9}, 100.0)
    assert awaiting.next_due_at == 100.0 + WAITS_S[0]
    assert awaiting.due(100.5) == []
    (waiting,) = awaiting.due(101.0)
    assert (waiting.user.key, set(waiting.items), waiting.user.clicks) == (b"a", {5}, [(1, 6)])
    assert awaiting.offsets(0, 9) == [1]


def test_a_later_click_is_answered_instead_and_does_not_extend_the_wait() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5))], {5}, 100.0)
    awaiting.add([_user("a", (3, 6))], frozenset(), 100.9)
    (waiting,) = awaiting.due(101.0)
    assert (set(waiting.items), waiting.user.clicks) == ({5}, [(3, 6)])


def test_items_that_are_still_missing_are_tried_again_at_growing_intervals_and_then_given_up() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5), (1, 6))], {5, 6}, 0.0)
    now, tries = 0.0, 0
    while awaiting.next_due_at < math.inf:
        assert awaiting.next_due_at == now + WAITS_S[tries]
        now, tries = awaiting.next_due_at, tries + 1
        due = awaiting.due(now)
        assert due[0].items == ({5, 6} if tries == 1 else {6})
        given_up = awaiting.tried(due, {5}, now)
        assert given_up == (tries == len(WAITS_S))
    assert tries == len(WAITS_S)


def test_users_of_partitions_that_were_revoked_are_forgotten() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5)), _user("b", (0, 5), partition=1)], {5}, 0.0)
    awaiting.keep([1])
    assert (awaiting.offsets(0, 9), awaiting.offsets(1, 9)) == ([], [0])
    awaiting.keep([])
    assert (len(awaiting), awaiting.next_due_at) == (0, math.inf)


def test_the_number_of_waiting_users_is_limited() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user(str(n), (n, 5)) for n in range(10_001)], {5}, 0.0)
    assert len(awaiting) == 10_000
    assert awaiting.offsets(0, 10_000)[0] == 1, "the oldest click is forgotten"
    assert awaiting.offsets(0, 3) == [9_998, 9_999, 10_000], "the newest ones are kept with the commit"


def test_few_users_are_tried_at_a_time_those_who_are_due_longest_first() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user(str(n), (n, 5)) for n in range(1_500)], {5}, 1.0)
    awaiting.add([_user("old", (0, 5), partition=1)], {5}, 0.0)
    due = awaiting.due(9.0)
    assert (len(due), due[0].user.key) == (1_000, b"old")
    assert awaiting.tried(due, {5}, 9.0) == 0
    assert awaiting.next_due_at <= 9.0, "the rest is due at once"
    awaiting.tried(awaiting.due(9.0), {5}, 9.0)
    assert (len(awaiting), awaiting.next_due_at) == (0, math.inf)


def test_a_time_at_which_no_user_is_due_any_more_is_not_asked_for_again() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5))], {5}, 0.0)
    awaiting.add([_user("a", (1, 5))], {5}, 0.5)
    assert awaiting.due(1.0) == []
    assert awaiting.next_due_at == 1.5


def test_users_can_be_answered_again_whether_they_await_a_vector_or_not() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5))], {5}, 0.0)
    awaiting.add_again([_user("a", (0, 5)), _user("b", (3, 6))], 0.0)
    due = awaiting.due(WAITS_S[0])
    assert [(waiting.user.key, set(waiting.items)) for waiting in due] == [(b"a", set()), (b"b", set())]
    assert awaiting.tried(due, frozenset(), WAITS_S[0]) == 0
    assert len(awaiting) == 0


def test_users_are_postponed_while_a_server_is_unavailable_and_lose_no_try() -> None:
    awaiting = AwaitingUsers()
    awaiting.add([_user("a", (0, 5))], {5}, 0.0)
    awaiting.postpone(awaiting.due(1.0), 20.0)
    assert (awaiting.due(20.5), awaiting.next_due_at) == ([], 20.0 + WAITS_S[0])
    (waiting,) = awaiting.due(20.0 + WAITS_S[0])
    assert waiting.tries == 0
