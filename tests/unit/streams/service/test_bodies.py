"""The numbers in bodies."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.service.bodies import shortest


def test_scores_have_no_digits_that_are_not_theirs() -> None:
    scores = np.array([[0.1, 0.81234509], [0.3, 1.0]], dtype=np.float32)
    assert json.dumps(shortest(scores[0])) == "[0.1, 0.8123451]"
    assert shortest(scores[:, 0]) == [0.1, 0.3], "also of a column"
    assert shortest(scores[0, :0]) == []


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_they_read_back_to_the_same_float32(numbers: list[float]) -> None:
    scores = np.array(numbers, dtype=np.float32)
    assert np.array(shortest(scores), dtype=np.float32).tobytes() == scores.tobytes()
