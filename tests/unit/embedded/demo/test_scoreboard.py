"""The demo's scoreboard, with a fake clock. The hit rate has tests of its own."""

from __future__ import annotations

from embedded.demo.scoreboard import NewItemTimes, RecentRates, Scoreboard, percentile
from streams.messages.clicks import Click
from streams.messages.recommendations import Recommendation


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _board() -> Scoreboard:
    return Scoreboard(popular=[1, 2, 3], story=b"7", clock=Clock())


def _recommendation(source: int, items: list[int], user: int = 7) -> Recommendation:
    n = len(items)
    return Recommendation(user, items, [0.5] * n, [0] * n, "m1", 3, 0, source, 99.0, 99.5)


def test_messages_are_counted_and_clicks_are_judged() -> None:
    board = _board()
    board.add_click(b"7", 0, Click(7, 5, 1.0))
    board.add_recommendation(b"7", _recommendation(0, [8, 9]), 99.75)
    board.add_click(b"7", 1, Click(7, 9, 1.0))
    assert (board.clicks, board.recommendations, board.dead_letters) == (2, 1, 0)
    assert (board.hit_rate.judged, board.hit_rate.hits) == (1, 1)
    assert board.latencies_s == [0.75]


def test_rates_are_those_of_the_last_seconds() -> None:
    clock = Clock()
    recent = RecentRates(clock)
    for _ in range(20):
        recent.add(clicks=1)
        clock.now += 0.1
    clicks, recommendations = recent.per_second()
    assert 9 <= clicks <= 11
    assert recommendations == 0
    clock.now += 60
    assert recent.per_second() == (0.0, 0.0)


def test_new_items_count_from_their_publication_to_their_first_recommendation() -> None:
    times = NewItemTimes()
    times.add_published(900, 98.0)
    times.add_recommendation([5, 900], 99.0)
    times.add_recommendation([900], 105.0)
    assert times.first_recommended_s == {900: 1.0}


def test_the_scoreboard_looks_for_new_items_in_recommendations() -> None:
    board = _board()
    board.new_items.add_published(900, 98.0)
    board.add_recommendation(b"7", _recommendation(0, [5, 900]), 99.0)
    assert board.new_items.first_recommended_s == {900: 1.0}


def test_the_story_follows_one_user() -> None:
    board = _board()
    board.add_click(b"8", 0, Click(8, 4, 1.0))
    board.add_click(b"7", 1, Click(7, 5, 1.0))
    board.add_recommendation(b"7", _recommendation(1, [1, 2]), 99.0)
    board.add_recommendation(b"7", _recommendation(2, [2, 3]), 99.0)
    story = board.story
    assert (list(story.clicks), story.recommended_before, story.recommended) == ([5], [1, 2], [2, 3])


def test_percentiles_are_in_milliseconds() -> None:
    assert percentile([0.01, 0.02, 0.03], 50) == "20 ms"
    assert percentile([], 50) == "–"
