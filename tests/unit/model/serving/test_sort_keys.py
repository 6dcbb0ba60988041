"""Sort keys: their order, and the scores and positions in them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.serving.sort_keys import NONE, pack, positions_of, scores_of

scores = st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf])


@given(st.lists(st.tuples(scores, st.integers(0, 2**32 - 1) | st.integers(0, 3))))
def test_keys_ascend_from_the_best_score_and_then_by_position(entries: list[tuple[float, int]]) -> None:
    values = np.array([score for score, _ in entries], np.float32)
    positions = np.array([position for _, position in entries], np.int64)
    keys = np.sort(pack(values, positions))
    order = np.lexsort((positions, -values))
    assert (scores_of(keys) == values[order]).all()
    assert (positions_of(keys) == positions[order]).all()


def test_no_entry_sorts_behind_all_others_and_has_the_lowest_score() -> None:
    worst = pack(np.array([-np.inf], np.float32), np.array([2**32 - 1]))
    assert worst[0] < NONE
    assert scores_of(np.array([NONE])).tolist() == [-np.inf]
