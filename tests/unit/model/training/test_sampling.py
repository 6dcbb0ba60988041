"""Training batches: the distributions of users, positions, targets and negatives."""

from __future__ import annotations

import numpy as np
import pytest

from configs.loader import load_train
from configs.schema import TrainConfig
from model.data.clicks import Clicks
from model.training.sampling import ExampleSampler, NegativeSampler, Sampler

#: Number of draws in the statistical tests, and the tolerance of a share: five standard deviations.
DRAWS = 40_000
TOLERANCE = 5 * 0.5 / DRAWS**0.5
NO_TARGETS = np.zeros(5, np.float32)


def clicks_of(lengths: list[int]) -> Clicks:
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return Clicks(np.arange(len(lengths)), offsets, np.arange(1, offsets[-1] + 1))


def config_of(*overrides: str) -> TrainConfig:
    return load_train(None, overrides, {})


@pytest.mark.parametrize(("power", "shares"), [(0.0, [0.5, 0.5]), (1.0, [0.1, 0.9]), (0.5, [0.25, 0.75])])
def test_users_are_drawn_by_a_power_of_their_examples(power: float, shares: list[float]) -> None:
    sampler = ExampleSampler(clicks_of([2, 1, 10]), 4, shortest=1, user_power=power)
    targets = sampler.draw(DRAWS, np.random.default_rng(0)).targets[:, 0]
    found = [(targets == 2).mean(), (targets > 3).mean()]  # the user with one click has no example
    assert found == pytest.approx(shares, abs=TOLERANCE)


def test_positions_after_the_shortest_history_are_equally_likely() -> None:
    sampler = ExampleSampler(clicks_of([6]), 4, shortest=3, user_power=0.5)
    targets = sampler.draw(DRAWS, np.random.default_rng(0)).targets[:, 0]
    assert set(targets.tolist()) == {4, 5, 6}
    assert np.bincount(targets)[4:] / DRAWS == pytest.approx([1 / 3] * 3, abs=TOLERANCE)


def test_the_shares_are_those_of_the_first_targets() -> None:
    sampler = ExampleSampler(
        Clicks(np.arange(3), np.array([0, 3, 5, 12]), np.array([1, 2, 3, 1, 2, *[3] * 6, 4])), 4, 1, 0.5
    )
    targets = sampler.draw(DRAWS, np.random.default_rng(0)).targets[:, 0]
    assert sampler.shares(5)[1:5] == pytest.approx(np.bincount(targets, minlength=5)[1:] / DRAWS, abs=TOLERANCE)
    assert sampler.shares(5).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("targets", "window", "expected"),
    [
        (1, 1.0, {2: [2], 3: [3], 4: [4], 5: [5], 6: [6]}),
        (3, 1.0, {2: [2, 0, 0], 3: [3, 4, 0], 4: [4, 5, 6], 5: [5, 6, 0], 6: [6, 0, 0]}),
        (3, 0.5, {2: [2, 0, 0], 3: [3, 0, 0], 4: [4, 5, 0], 5: [5, 6, 0], 6: [6, 0, 0]}),
    ],
)
def test_targets_are_the_next_clicks_within_the_window(
    targets: int, window: float, expected: dict[int, list[int]]
) -> None:
    sampler = ExampleSampler(clicks_of([6]), 4, 1, 0.5, targets, window)
    drawn = sampler.draw(100, np.random.default_rng(0))
    assert {row[0]: row for row in drawn.targets.tolist()} == expected
    assert (drawn.histories.max(axis=1) + 1 == drawn.targets[:, 0]).all()


def test_a_batch_depends_only_on_seed_and_step() -> None:
    clicks, counts = clicks_of([9] * 50), np.ones(450, np.int64)
    one, same, other = (
        Sampler(clicks, counts, config_of(f"training.seed={seed}", "training.batch_size=64")) for seed in (3, 3, 4)
    )
    batches = [one.batch(step) for step in range(1, 101)]
    assert len({batch.targets.tobytes() for batch in batches}) == 100
    assert len({batch.negatives.tobytes() for batch in batches}) == 100
    assert all((a == b).all() for a, b in zip(same.batch(57), batches[56], strict=True))
    assert (other.batch(57).targets != batches[56].targets).any()


def test_data_without_training_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="no user has more than 3 clicks"):
        ExampleSampler(clicks_of([3, 2]), 4, shortest=3, user_power=0.5)


@pytest.mark.parametrize("distribution", ["uniform", "log_uniform"])
def test_negatives_follow_the_probability_that_the_loss_corrects_for(distribution: str) -> None:
    config = config_of(f"loss.distribution={distribution}", f"loss.negatives={DRAWS}")
    sampler = NegativeSampler(np.array([5, 100, 1, 30]), config, NO_TARGETS)
    rows = sampler.draw(np.arange(0), np.random.default_rng(0))
    probability = np.exp(sampler.log_q[1:])
    assert probability.sum() == pytest.approx(1, abs=1e-6)
    assert np.bincount(rows, minlength=5)[1:] / DRAWS == pytest.approx(probability, abs=TOLERANCE)
    assert rows.min() >= 1


@pytest.mark.parametrize("distribution", ["in_batch", "mixed"])
def test_negatives_of_the_batch_follow_the_probability_that_the_loss_corrects_for(distribution: str) -> None:
    clicks = Clicks(np.arange(2), np.array([0, 4, 10]), np.array([1, 2, 3, 3, 1, 2, 2, 2, 3, 3]))
    config = config_of(
        f"loss.distribution={distribution}", f"training.batch_size={DRAWS}", f"loss.negatives={DRAWS // 2}"
    )
    sampler = Sampler(clicks, np.array([2, 4, 4]), config)
    batch = sampler.batch(1)
    assert len(batch.negatives) == (DRAWS if distribution == "in_batch" else DRAWS + DRAWS // 2)
    drawn = np.bincount(batch.negatives, minlength=4)[1:] / len(batch.negatives)
    assert np.exp(sampler.log_q[2:]) == pytest.approx(drawn[1:], abs=TOLERANCE)


def test_log_uniform_ranks_by_the_counts_and_not_by_the_ids() -> None:
    config = config_of("loss.distribution=log_uniform")
    sampler = NegativeSampler(np.array([5, 100, 1, 30]), config, NO_TARGETS)
    assert np.argsort(-sampler.log_q[1:]).tolist() == [1, 3, 0, 2]
    assert np.exp(sampler.log_q[2]) == pytest.approx(np.log(2) / np.log(5))
