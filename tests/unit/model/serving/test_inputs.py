"""The model's input, in serving and in training."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.data.clicks import Clicks
from model.serving.inputs import model_input
from model.training.sampling import ExampleSampler

histories_of_ids = st.lists(st.lists(st.integers(-(2**63), 2**63 - 1).filter(bool), max_size=12), max_size=8)


@given(histories_of_ids, st.integers(1, 9))
def test_input_is_the_newest_clicks_oldest_first_left_aligned_and_padded(
    histories: list[list[int]], length: int
) -> None:
    ids, lengths = model_input([np.array(history, np.int64) for history in histories], length)
    assert ids.shape == (len(histories), length)
    assert ids.dtype == lengths.dtype == np.int64
    for row, count, history in zip(ids.tolist(), lengths, histories, strict=True):
        newest = history[-length:]
        assert count == len(newest)
        assert row == newest + [0] * (length - len(newest))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(lambda n: max(n) > 1), st.integers(1, 6))
def test_training_and_serving_have_the_same_input(lengths: list[int], length: int) -> None:
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    clicks = Clicks(np.arange(len(lengths)), offsets, np.arange(1, offsets[-1] + 1))  # click i is on item i + 1
    examples = ExampleSampler(clicks, length, shortest=1, user_power=0.5).draw(40, np.random.default_rng(0))
    targets = examples.targets[:, 0]
    user = np.searchsorted(offsets, targets - 1, side="right") - 1
    histories = [np.arange(offsets[u] + 1, target) for u, target in zip(user, targets, strict=True)]
    ids, counts = model_input(histories, length)
    assert (examples.histories == ids).all()
    assert (examples.lengths == counts).all()
    assert counts.min() >= 1
