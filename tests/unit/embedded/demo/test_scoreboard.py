"""What the demo counts, over a clock of the test's own."""

from __future__ import annotations

from embedded.demo.scoreboard import Scoreboard, percentile
from streams.messages.clicks import Click
from streams.messages.recommendations import Recommendation


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _board(clock: Clock | None = None) -> Scoreboard:
    return Scoreboard(popular=[1, 2, 3], story=b"7", clock=clock or Clock())


def _recommendation(source: int, items: list[int], user: int = 7) -> Recommendation:
    n = len(items)
    return Recommendation(user, items, [0.5] * n, [0] * n, "m1", 3, 0, source, 99.0, 99.5)


def test_a_click_counts_only_when_the_user_had_a_recommendation() -> None:
    board = _board()
    board.click(b"7", 0, Click(7, 5, 1.0))
    assert (board.clicks, board.judged) == (1, 0)
    board.recommendation(b"7", _recommendation(0, [8, 9]), 99.75)
    board.click(b"7", 1, Click(7, 9, 1.0))
    board.click(b"7", 2, Click(7, 4, 1.0))
    assert (board.judged, board.hits) == (2, 1)
    assert board.latencies == [0.75]


def test_the_answer_to_a_click_that_arrives_before_it_does_not_judge_it() -> None:
    """Topics are read side by side; the answer leaves out what was clicked, so it would count as a miss."""
    board = _board()
    board.recommendation(b"7", _recommendation(0, [9]), 99.75)
    board.recommendation(b"7", _recommendation(1, [8]), 99.75)
    board.click(b"7", 1, Click(7, 9, 1.0))
    assert (board.judged, board.hits) == (1, 1)


def test_the_baseline_recommends_what_is_popular_and_not_clicked_yet() -> None:
    board = _board()
    board.recommendation(b"7", _recommendation(0, []), 99.75)
    for offset, item in enumerate([1, 1, 3, 9], start=1):
        board.click(b"7", offset, Click(7, item, 1.0))
    assert (board.judged, board.hits, board.popular_hits) == (4, 0, 2)
    assert board.hit_rates() == (0.0, 0.5)


def test_rates_are_of_the_last_seconds() -> None:
    clock = Clock()
    board = _board(clock)
    for offset in range(20):
        board.click(b"7", offset, Click(7, 5, 1.0))
        clock.now += 0.1
    clicks, recommendations = board.rates()
    assert 9 <= clicks <= 11
    assert recommendations == 0
    clock.now += 60
    assert board.rates() == (0.0, 0.0)


def test_new_items_count_when_they_are_first_recommended() -> None:
    board = _board()
    board.published(900, 98.0)
    board.recommendation(b"7", _recommendation(0, [5, 900]), 99.0)
    board.recommendation(b"7", _recommendation(1, [900]), 105.0)
    assert board.first_recommended == {900: 1.0}


def test_the_story_follows_one_user() -> None:
    board = _board()
    board.click(b"8", 0, Click(8, 4, 1.0))
    board.click(b"7", 1, Click(7, 5, 1.0))
    board.recommendation(b"7", _recommendation(1, [1, 2]), 99.0)
    board.recommendation(b"7", _recommendation(2, [2, 3]), 99.0)
    assert (list(board.story.clicks), board.story.before, board.story.now) == ([5], [1, 2], [2, 3])


def test_percentiles_are_in_milliseconds() -> None:
    assert percentile([0.01, 0.02, 0.03], 50) == "20 ms"
    assert percentile([], 50) == "–"
