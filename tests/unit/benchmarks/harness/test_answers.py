"""Delays and rates, computed from the messages on the topics."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.answers import Events, Phase
from benchmarks.harness.errors import BenchmarkError


def events(*found: tuple[int, int, float]) -> Events:
    """Return events from (user, offset, seconds)."""
    positions = np.array([user * 2**40 + offset for user, offset, _ in found], dtype=np.int64)
    return Events(positions, np.array([at for *_, at in found], dtype=np.float64))


def test_a_click_is_answered_by_the_first_answer_to_it_or_to_a_later_click() -> None:
    anna, bert = 0, 1
    clicks = events((anna, 5, 1.0), (anna, 7, 2.0), (bert, 5, 1.0), (anna, 9, 4.0))
    answers = events((anna, 3, 0.5), (bert, 5, 1.5), (anna, 7, 3.0), (anna, 9, 4.25), (bert, 5, 9.0))
    assert Phase(clicks, answers).delays().tolist() == [2.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("answer", [(0, 4, 2.0), (1, 5, 2.0)])
def test_a_click_without_answer_fails_the_benchmark(answer: tuple[int, int, float]) -> None:
    with pytest.raises(BenchmarkError, match="1 of 1 clicks have no answer"):
        Phase(events((0, 5, 1.0)), events(answer)).delays()


def test_rates_are_those_of_the_middle_80_percent() -> None:
    # Ten answers a second, after a long start; each answers two clicks.
    begin = [0.0, 100.0]
    answers = events(*((0, 2 * n + 1, at) for n, at in enumerate([*begin, *(100 + k / 10 for k in range(1, 100))])))
    clicks = events(*((0, n, 0.0) for n in range(2 * len(answers))))
    phase = Phase(clicks, answers)
    assert phase.answer_rate() == pytest.approx(10, rel=0.05)
    assert phase.rate() == pytest.approx(20, rel=0.05)
    assert phase.coalesced_share() == pytest.approx(0.5)
    seconds, answered = phase.progress()
    assert seconds[0] == 0 and seconds[-1] == pytest.approx(109.9)
    assert np.diff(answered).tolist() == pytest.approx([len(clicks) / 50] * 50)


def test_lateness_is_relative_to_an_open_schedule() -> None:
    clicks = events((0, 0, 10.0), (0, 2, 10.5), (0, 3, 10.5), (1, 0, 10.1))  # in the order of the partitions
    assert Phase(clicks, events()).lateness(rate=10).tolist() == pytest.approx([0, 0.3, 0.2, 0])
