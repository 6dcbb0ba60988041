"""The page's figures of the stream."""

from __future__ import annotations

import pytest

from streams.messages.clicks import Click
from streams.messages.recommendations import Recommendation
from streams.service import figures
from streams.service.figures import StreamFigures


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _click(stream: StreamFigures, offset: int, item: int, written: float, user: str = "anna") -> float | None:
    return stream.add_click(user.encode(), 0, offset, Click(user, item, written), written)


def _answer(stream: StreamFigures, offset: int, items: list[int], written: float, user: str = "anna") -> float | None:
    n = len(items)
    answer = Recommendation(user, items, [1.0] * n, [0] * n, "m1", n, 0, offset, written, written)
    return stream.add_recommendation(user.encode(), answer, written)


def test_nothing_is_shown_before_it_is_known() -> None:
    clock = _Clock()
    stream = StreamFigures([1], clock)
    first = stream.snapshot(clock.now)
    assert (first.clicks_per_s, first.recommendations_per_s, first.latency, first.hit_rate) == (None,) * 4
    clock.now += 5
    later = stream.snapshot(clock.now)
    assert (later.clicks_per_s, later.recommendations_per_s) == (0.0, 0.0), "nothing happened, and that is known"
    assert (later.latency, later.hit_rate) == (None, None)


def test_rates_are_those_of_the_last_seconds() -> None:
    clock = _Clock()
    stream = StreamFigures([], clock)
    for second in range(30):
        clock.now = 1000.5 + second
        for i in range(7):
            _click(stream, 10 * second + i, 1, clock.now)
            if i < 3:
                _answer(stream, 10 * second + i, [2], clock.now)
    found = stream.snapshot(clock.now)
    assert (found.clicks_per_s, found.recommendations_per_s) == (7.0, 3.0)
    known_at = clock.now
    clock.now += 60
    assert stream.snapshot(known_at).clicks_per_s == 7.0, "what came since is not known"
    assert stream.snapshot(clock.now).clicks_per_s == 0


@pytest.mark.parametrize("answer_first", [True, False])
def test_latencies_are_those_between_the_times_of_the_messages(answer_first: bool) -> None:
    clock = _Clock()
    stream = StreamFigures([], clock)
    for offset in range(100):
        milliseconds = 20 if offset < 98 else 500
        sent, answered = 50.0 + offset, 50.0 + offset + milliseconds / 1000
        if answer_first:
            assert _answer(stream, offset, [2], answered) is None
            measured = _click(stream, offset, 1, sent)
        else:
            assert _click(stream, offset, 1, sent) is None
            measured = _answer(stream, offset, [2], answered)
        assert measured == pytest.approx(milliseconds / 1000)
        assert _answer(stream, offset, [2], answered + 9) is None, "a repeated answer is not measured again"
    latency = stream.snapshot(clock.now).latency
    assert latency is not None and latency.count == 100
    assert latency.p50_s == pytest.approx(0.02, rel=0.06)
    assert latency.p99_s == pytest.approx(0.5, rel=0.06)
    clock.now += 61
    assert stream.snapshot(clock.now).latency is None


def test_the_hit_rate_is_shown_beside_that_of_popular_items() -> None:
    stream = StreamFigures([7], _Clock())
    _answer(stream, 0, [5], 1.0)
    _click(stream, 1, 5, 2.0)
    _click(stream, 2, 7, 3.0)
    rate = stream.snapshot(0.0).hit_rate
    assert rate is not None
    assert (rate.ours, rate.popular, rate.judged) == (0.5, 0.5, 2)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_CLICKS", 10)
    stream = StreamFigures([], _Clock())
    for offset in range(100):
        _click(stream, offset, 1, 1.0, user=f"u{offset}")
        _answer(stream, 1000 + offset, [1], 1.0, user=f"u{offset}")
    assert len(stream._clicked_at) <= 10 and len(stream._answered_at) <= 10
    assert stream.snapshot(0.0).active == [f"u{n}" for n in range(99, 99 - figures.MAX_ACTIVE, -1)]
