from __future__ import annotations

import numpy as np
import pytest

from model.data import Clicks
from model.sampling import ExampleSampler, NegativeSampler

#: Draws of the statistical tests, and how far from the expected share they may be: five standard deviations.
DRAWS = 40_000
TOLERANCE = 5 * 0.5 / DRAWS**0.5


def clicks_of(lengths: list[int]) -> Clicks:
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return Clicks(np.arange(len(lengths)), offsets, np.arange(1, offsets[-1] + 1))


@pytest.mark.parametrize(("power", "shares"), [(0.0, [0.5, 0.5]), (1.0, [0.1, 0.9]), (0.5, [0.25, 0.75])])
def test_users_are_drawn_by_a_power_of_their_examples(power: float, shares: list[float]) -> None:
    sampler = ExampleSampler(clicks_of([2, 1, 10]), 4, shortest=1, user_power=power)
    targets = sampler.draw(DRAWS, np.random.default_rng(0)).targets
    found = [(targets == 2).mean(), (targets > 3).mean()]  # the user with one click has no example
    assert found == pytest.approx(shares, abs=TOLERANCE)


def test_every_place_of_a_user_is_drawn_alike_after_the_shortest_history() -> None:
    sampler = ExampleSampler(clicks_of([6]), 4, shortest=3, user_power=0.5)
    targets = sampler.draw(DRAWS, np.random.default_rng(0)).targets
    assert set(targets.tolist()) == {4, 5, 6}
    assert np.bincount(targets)[4:] / DRAWS == pytest.approx([1 / 3] * 3, abs=TOLERANCE)


def test_batches_differ_within_a_run_and_repeat_by_seed() -> None:
    sampler = ExampleSampler(clicks_of([9] * 50), 4, shortest=1, user_power=0.5)
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    batches = [sampler.draw(64, rng).targets.tolist() for _ in range(100)]
    assert len({tuple(batch) for batch in batches}) == 100
    assert [sampler.draw(64, same).targets.tolist() for _ in range(100)] == batches


def test_data_with_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="no user has more than 3 clicks"):
        ExampleSampler(clicks_of([3, 2]), 4, shortest=3, user_power=0.5)


@pytest.mark.parametrize("distribution", ["uniform", "log_uniform"])
def test_negatives_follow_the_probability_that_the_loss_corrects_for(distribution: str) -> None:
    counts = np.array([5, 100, 1, 30])
    sampler = NegativeSampler(counts, distribution)  # type: ignore[arg-type]
    rows = sampler.draw(DRAWS, np.random.default_rng(0))
    probability = np.exp(sampler.log_q[1:])
    assert probability.sum() == pytest.approx(1, abs=1e-6)
    assert np.bincount(rows, minlength=5)[1:] / DRAWS == pytest.approx(probability, abs=TOLERANCE)
    assert rows.min() >= 1


def test_log_uniform_ranks_by_the_counts_and_not_by_the_ids() -> None:
    sampler = NegativeSampler(np.array([5, 100, 1, 30]), "log_uniform")
    assert np.argsort(-sampler.log_q[1:]).tolist() == [1, 3, 0, 2]
    assert np.exp(sampler.log_q[2]) == pytest.approx(np.log(2) / np.log(5))
