"""First clicks, and figures of methods on the same users."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from model.data.clicks import Clicks
from model.profile.measure import compared, first_clicks

CLICKS = Clicks(np.array([1, 2, 3]), np.array([0, 5, 6, 8]), np.array([10, 11, 12, 13, 14, 20, 30, 31]))


def test_first_clicks_and_the_next_ones() -> None:
    first, following = first_clicks(CLICKS, 0, 2), first_clicks(CLICKS, 1, 3)
    assert [first.items_of(user).tolist() for user in range(3)] == [[10, 11], [20], [30, 31]]
    assert [following.items_of(user).tolist() for user in range(3)] == [[11, 12, 13], [], [31]]
    assert first_clicks(CLICKS, 9, 1).lengths.tolist() == [0, 0, 0]


def test_differences_are_those_of_the_same_users() -> None:
    rng = np.random.default_rng(1)
    other = rng.random((200, 2))
    figures = compared({"other": other, "tower": other + 0.1}, "tower")
    assert figures["other"].more_recall.low == pytest.approx(0.1)
    assert figures["other"].more_ndcg.high == pytest.approx(0.1)
    assert figures["tower"].more_recall.mean == 0
    assert figures["other"].recall.low < other[:, 0].mean() < figures["other"].recall.high
