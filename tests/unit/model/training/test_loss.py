"""The sampled softmax: its definition, its two implementations, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import load_train
from configs.schema import Loss
from model.arrays import FloatArray
from model.serving.encoder import LOG_ZERO
from model.training.backend import Tensor, paddle
from model.training.loss import LossTerms, by_operators, loss_and_gradients, sampled_softmax

B, K, T, D, M = 6, 4, 3, 16, 9
LOG_Q = np.log(np.random.default_rng(9).random(30)).astype(np.float32)
#: Rows; 0 = no target. 3, 4 and 5 are targets of some users and negatives of all.
TARGETS = np.array([[1, 0, 0], [2, 3, 0], [3, 4, 5], [12, 0, 0], [5, 1, 0], [20, 21, 22]])
NEGATIVES = np.arange(3, 3 + M)


def settings(*overrides: str) -> Loss:
    return load_train(None, overrides, {}).loss


def vectors(interests: int = K) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(0)
    shapes = (B, interests, D), (B, T, D), (M, D)
    one, two, three = ((rng.standard_normal(shape) / 4).astype(np.float32) for shape in shapes)
    return one, two, three


def terms() -> LossTerms:
    return LossTerms.from_rows(TARGETS, NEGATIVES, LOG_Q, users=B)


@pytest.mark.parametrize("hardness", [0, 4])
@pytest.mark.parametrize(("readout", "fusion"), [("max", 0), ("max", 0.3), ("hard", 0.3), ("soft", 0.3)])
def test_the_loss_equals_its_definition(readout: str, fusion: float, hardness: int) -> None:
    loss = settings(f"loss.readout={readout}", f"loss.fusion={fusion}", "loss.power=3", f"loss.hardness={hardness}")
    interests, targets, negatives = vectors()
    total = 0.0
    for b in range(B):
        others = ~np.isin(NEGATIVES, TARGETS[b])
        given = np.flatnonzero(TARGETS[b])
        for t in given:
            to_target = interests[b] @ targets[b, t]
            if readout == "max":
                right, *wrongs = (
                    (1 - fusion) * scores.max() + fusion * scores.mean()
                    for scores in (to_target, *(negatives @ interests[b].T)[others])
                )
                wrong = np.array(wrongs)
            else:
                powers = np.exp(to_target**3)
                share = powers / powers.sum() if readout == "soft" else np.arange(K) == to_target.argmax()
                user = share @ interests[b]
                right, wrong = user @ targets[b, t], (negatives @ user)[others]
            weights = np.exp(hardness * wrong)
            weights *= M / weights.sum()
            odds = np.exp(wrong / loss.temperature - LOG_Q[NEGATIVES[others]]) * (weights if hardness else 1)
            chosen = np.exp(right / loss.temperature - LOG_Q[TARGETS[b, t]])
            total -= np.log(chosen / (chosen + odds.sum())) / len(given)
    users, right, wrong = (paddle.to_tensor(array) for array in (interests, targets, negatives))
    assert float(sampled_softmax(users, right, wrong, terms(), loss)) == pytest.approx(total / B, rel=1e-4)


@pytest.mark.parametrize("interests", [1, 4])
@pytest.mark.parametrize(("hardness", "fusion"), [(0, 0), (4, 0), (0, 0.3), (4, 1)])
def test_numpy_and_operators_agree_in_value_and_gradients(interests: int, hardness: int, fusion: float) -> None:
    loss = settings(f"loss.hardness={hardness}", f"loss.fusion={fusion}")
    users, targets, negatives = vectors(interests)
    leaves = leaf(users), leaf(targets), leaf(negatives)
    expected = by_operators(leaves[0], leaves[1], leaves[2], terms(), loss)
    expected.backward()
    value, *gradients = loss_and_gradients(users, targets, negatives, terms(), loss)
    assert value == pytest.approx(float(expected), rel=1e-5)
    for found, tensor in zip(gradients, leaves, strict=True):
        assert found == pytest.approx(np.array(tensor.grad.numpy()), rel=1e-4, abs=1e-5)
        assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("fusion", [0, 0.3])
def test_equal_interests_learn_what_one_vector_would_learn(fusion: float) -> None:
    """The interests of a single click are equal, so a negative must not count once for each of them."""
    users, targets, negatives = vectors(1)
    loss = settings(f"loss.fusion={fusion}")
    single = loss_and_gradients(users, targets, negatives, terms(), loss)
    value, by_users, by_targets, by_negatives = loss_and_gradients(
        users.repeat(K, axis=1), targets, negatives, terms(), loss
    )
    assert value == pytest.approx(float(single[0]), rel=1e-6)
    assert by_users.sum(axis=1) == pytest.approx(single[1][:, 0], abs=1e-6)
    assert by_targets == pytest.approx(single[2], abs=1e-6)
    assert by_negatives == pytest.approx(single[3], abs=1e-6)


def test_padding_of_targets_has_no_gradient_and_a_users_targets_are_not_its_negatives() -> None:
    users, targets, negatives = vectors()
    by_targets = loss_and_gradients(users, targets, negatives, terms(), settings())[2]
    assert (by_targets[TARGETS == 0] == 0).all()
    assert (terms().added()[2] == LOG_ZERO).tolist() == [True] * 3 + [False] * 6


def test_parts_of_a_batch_sum_to_the_whole() -> None:
    loss = settings()
    interests, targets, negatives = vectors()
    whole = loss_and_gradients(interests, targets, negatives, terms(), loss)
    value, gradient = 0.0, np.zeros((M, D), np.float32)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        own = LossTerms.from_rows(TARGETS[part], NEGATIVES, LOG_Q, users=B)
        found = loss_and_gradients(interests[part], targets[part], negatives, own, loss)
        value, gradient = value + float(found[0]), gradient + found[3]
    assert value == pytest.approx(float(whole[0]), rel=1e-5)
    assert gradient == pytest.approx(whole[3], abs=1e-6)


@pytest.mark.parametrize("readout", ["max", "hard"])
def test_blocks_of_users_sum_to_the_whole(readout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = settings(f"loss.readout={readout}", "loss.hardness=2")

    def found() -> list[FloatArray]:
        leaves = [leaf(part) for part in vectors()]
        value = sampled_softmax(leaves[0], leaves[1], leaves[2], terms(), loss)
        value.backward()
        return [value.numpy(), *(tensor.grad.numpy() for tensor in leaves)]

    whole = found()
    monkeypatch.setattr("model.training.loss.BLOCK_USERS", 4)
    for part, expected in zip(found(), whole, strict=True):
        assert part == pytest.approx(expected, rel=1e-5, abs=1e-6)


def leaf(array: FloatArray) -> Tensor:
    tensor: Any = paddle.to_tensor(array)
    tensor.stop_gradient = False
    return tensor
