"""A history compared with its user's clicks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.history import History
from streams.tools.audit_histories import Verdict, compare

CLICKS = [(2, 11), (5, 12), (6, 13), (9, 14), (12, 15)]


@pytest.mark.parametrize(
    ("offset", "items", "length", "verdict"),
    [
        (12, [12, 13, 14, 15], 4, "equal"),
        (5, [11, 12], 4, "equal"),
        (12, [11, 12, 13, 14, 15], 4, "other length"),
        (12, [13, 14, 15], 4, "other length"),  # as many as the model reads
        (12, [14, 15], 4, "different"),  # fewer than any worker would have been allowed to keep
        (9, [12, 13, 14], 4, "other length"),
        (5, [12], 4, "different"),  # the first click was lost
        (12, [12, 13, 14, 14], 4, "different"),
        (12, [12, 14, 15], 4, "different"),
        (12, [10, 11, 12, 13, 14, 15], 9, "different"),
        (10, [11, 12, 13, 14], 4, "different"),  # no click at the fence
        (12, [], 4, "different"),
    ],
)
def test_a_history_is_compared_with_the_clicks_up_to_its_fence(
    offset: int, items: list[int], length: int, verdict: Verdict
) -> None:
    history = History(0, offset, np.array(items, dtype=np.int64))
    assert compare(history, CLICKS, length, 3, complete=True) == verdict


@pytest.mark.parametrize(
    ("offset", "items", "verdict"),
    [
        (5, [9, 10, 11, 12], "equal"),
        (5, [12], "different"),  # two clicks are known
        (5, [9, 10, 7, 12], "different"),
        (5, [8, 9, 10, 11, 12], "other length"),
        (12, [12, 13, 14, 15], "equal"),
    ],
)
def test_without_the_first_clicks_the_newest_are_compared(offset: int, items: list[int], verdict: Verdict) -> None:
    history = History(0, offset, np.array(items, dtype=np.int64))
    assert compare(history, CLICKS, 4, 3, complete=False) == verdict


@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(3, 6), st.integers(3, 6), st.data())
def test_no_lost_click_passes_for_another_length(
    items: list[int], length: int, former: int, data: st.DataObject
) -> None:
    clicks = list(enumerate(items))
    right = History(0, len(items) - 1, np.array(items[-former:], dtype=np.int64))
    verdict = compare(right, clicks, length, 3, complete=True)
    assert verdict == ("equal" if min(len(items), former) == min(len(items), length) else "other length")
    lost = data.draw(st.integers(0, len(items) - 1))
    rest = items[:lost] + items[lost + 1 :]
    if rest and rest[-3:] != items[-3:]:  # the loss shows in the shortest window
        broken = History(0, len(items) - 1, np.array(rest[-length:], dtype=np.int64))
        assert compare(broken, clicks, length, 3, complete=True) == "different"
