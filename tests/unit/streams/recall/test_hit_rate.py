"""The online hit rate, beside its baseline."""

from __future__ import annotations

from streams.recall.hit_rate import OnlineHitRate

USER, OTHER = b"7", b"8"


def test_a_click_is_judged_only_if_the_user_had_a_recommendation() -> None:
    hit_rate = OnlineHitRate(popular=[])
    hit_rate.add_click(USER, 0, 5)
    assert hit_rate.judged == 0
    hit_rate.add_recommendation(USER, 0, [8, 9])
    hit_rate.add_click(USER, 1, 9)
    hit_rate.add_click(USER, 2, 4)
    hit_rate.add_click(OTHER, 3, 9)
    assert (hit_rate.judged, hit_rate.hits) == (2, 1)
    assert hit_rate.rates() == (0.5, 0.0)


def test_an_answer_that_arrives_before_its_click_does_not_judge_it() -> None:
    """Topics are read side by side; the answer leaves out what was clicked, so it would count as a miss."""
    hit_rate = OnlineHitRate(popular=[])
    hit_rate.add_recommendation(USER, 0, [9])
    hit_rate.add_recommendation(USER, 1, [8])
    hit_rate.add_click(USER, 1, 9)
    assert (hit_rate.judged, hit_rate.hits) == (1, 1)


def test_only_the_first_items_count() -> None:
    hit_rate = OnlineHitRate(popular=[1, 2, 3], cutoff=2)
    hit_rate.add_recommendation(USER, 0, [7, 8, 9])
    hit_rate.add_click(USER, 1, 9)
    hit_rate.add_click(USER, 2, 3)
    assert (hit_rate.judged, hit_rate.hits, hit_rate.popular_hits) == (2, 0, 0)


def test_the_baseline_recommends_popular_items_that_the_user_has_not_clicked() -> None:
    hit_rate = OnlineHitRate(popular=[1, 2, 3])
    hit_rate.add_recommendation(USER, 0, [])
    for offset, item in enumerate([1, 1, 3, 9], start=1):
        hit_rate.add_click(USER, offset, item)
    assert (hit_rate.judged, hit_rate.hits, hit_rate.popular_hits) == (4, 0, 2)
    assert hit_rate.rates() == (0.0, 0.5)


def test_without_judged_clicks_the_rates_are_zero() -> None:
    assert OnlineHitRate(popular=[1]).rates() == (0.0, 0.0)


def test_users_beyond_the_limit_are_forgotten_those_without_a_message_for_longest_first() -> None:
    hit_rate = OnlineHitRate(popular=[1], max_users=2)
    hit_rate.add_recommendation(USER, 0, [9])
    hit_rate.add_recommendation(OTHER, 0, [9])
    hit_rate.add_click(USER, 1, 3)
    hit_rate.add_recommendation(b"9", 0, [9])
    hit_rate.add_click(OTHER, 2, 9)
    assert (hit_rate.judged, hit_rate.hits) == (1, 0)
    assert len(hit_rate._clicked) <= 2 and len(hit_rate._newest) <= 2
