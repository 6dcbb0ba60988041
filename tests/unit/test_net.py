"""The Paddle half of the model: equal to the NumPy encoder, with gradients where they are meant and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import FOLDER, load_train
from configs.schema import TrainConfig
from model.encoder import Encoder
from model.net import Mind, corrections, initial_weights, paddle, routing_of, sampled_softmax

ITEMS = 50
VARIANTS: dict[str, tuple[Path | None, list[str]]] = {
    "published": (FOLDER / "train-published.yaml", []),
    "default": (None, []),
    "other options": (
        None,
        ["network.residual=0.5", "network.start=learned", "network.routing_map=identity", "network.iterations=4"],
    ),
}


def config_of(variant: str, *overrides: str) -> TrainConfig:
    path, given = VARIANTS[variant]
    return load_train(path, ["network.dim=16", "network.history_length=7", *given, *overrides], {})


def random_net(config: TrainConfig, seed: int = 0) -> tuple[Mind, dict[str, npt.NDArray[np.float32]]]:
    """A network whose weights are all random, those that training starts from the identity or from zero too."""
    rng = np.random.default_rng(seed)
    weights = initial_weights(config.network, ITEMS, rng)
    for name, value in weights.items():
        value += 0.3 * rng.standard_normal(value.shape, dtype=np.float32)
        if name == "table":
            value[0] = 0
    return Mind(weights, config.network), weights


def random_batch(B: int, L: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, L + 1, B)
    return rng.integers(1, ITEMS + 1, (B, L)) * (np.arange(L) < lengths[:, None]), lengths


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_encoder_equals_the_network(variant: str, seed: int) -> None:
    config = config_of(variant)
    net, weights = random_net(config, seed)
    rows, lengths = random_batch(200, 7, seed)
    embeddings = net.vectors(paddle.to_tensor(rows))
    trained = net(embeddings, paddle.to_tensor(lengths)).numpy()
    served = Encoder(weights, routing_of(config.network)).encode(embeddings.numpy(), lengths)
    assert np.abs(served - trained).max() <= 1e-5
    assert np.abs(trained).max() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_come_back_as_they_went_in(variant: str) -> None:
    net, weights = random_net(config_of(variant))
    back = net.weights()
    assert back.keys() == weights.keys()
    assert all((back[name] == weights[name]).all() and back[name].dtype == np.float32 for name in weights)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_step_changes_the_used_rows_and_the_trained_weights_alone(variant: str) -> None:
    config = config_of(variant)
    net, before = random_net(config)
    trained = [parameter for parameter in net.parameters() if not parameter.stop_gradient]
    adam = paddle.optimizer.Adam(0.01, parameters=trained, lazy_mode=True)
    rows, lengths = random_batch(8, 7)
    rows, lengths, targets, wrong = rows % 20, lengths, np.arange(20, 28), np.arange(28, 33)
    rows[rows == 0] = 1
    rows *= np.arange(7) < lengths[:, None]
    interests = net(net.vectors(paddle.to_tensor(rows)), paddle.to_tensor(lengths))
    added = paddle.to_tensor(corrections(targets, wrong, np.zeros(ITEMS + 1, np.float32)))
    vectors = net.vectors(paddle.to_tensor(targets)), net.vectors(paddle.to_tensor(wrong))
    sampled_softmax(interests, *vectors, added, config.loss).backward()
    assert net.table._grad_ivar().is_selected_rows()
    adam.step()
    after = net.weights()
    changed = np.flatnonzero((after["table"] != before["table"]).any(axis=1))
    assert 0 not in changed
    assert set(changed) <= {*rows.ravel(), *range(20, 33)}
    assert {*range(20, 28)} & set(changed)
    moved = {name for name in before if (after[name] != before[name]).any()}
    assert (
        moved
        == {
            "published": {"table", "bilinear", "output", "bias"},
            "default": {"table", "bilinear", "output", "recency"},
            "other options": {"table", "output", "recency", "start"},
        }[variant]
    )


def test_no_gradient_passes_through_the_first_iterations() -> None:
    config = config_of("published")
    net, _ = random_net(config)
    rows, lengths = random_batch(8, 7)
    embeddings, probe = net.vectors(paddle.to_tensor(rows)).detach(), paddle.randn([8, 4, 16])

    def gradient(interests: Any) -> npt.NDArray[np.float32]:
        net.clear_gradients()
        (interests * probe).sum().backward()
        return np.array(net.bilinear.grad.numpy())

    found = gradient(net(embeddings, paddle.to_tensor(lengths)))
    mapped = paddle.matmul(embeddings, net.bilinear)
    age = paddle.to_tensor(lengths).unsqueeze(1) - 1 - paddle.arange(7)
    place = paddle.clip(age, min=0)
    log_weight = net.recency[place] + (age < 0).astype("float32") * -1e9
    constant = net.routing_weights(mapped, place, log_weight.unsqueeze(2)).detach()
    capsules = paddle.matmul(constant, mapped, transpose_x=True)
    square = (capsules**2).sum(-1, keepdim=True)
    capsules = capsules * square / (1 + square) / paddle.sqrt(square + 1e-12)
    known = (paddle.to_tensor(lengths) > 0).astype("float32").reshape([-1, 1, 1])
    expected = gradient(paddle.nn.functional.relu(paddle.matmul(capsules, net.output) + net.bias) * known)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("readout", ["max", "hard", "soft"])
def test_the_loss_equals_its_definition(readout: str) -> None:
    loss = config_of("default", f"loss.readout={readout}", "loss.power=3").loss
    rng = np.random.default_rng(0)
    B, K, D, M = 6, 4, 16, 9
    interests, targets, negatives = (rng.standard_normal(shape) / 4 for shape in ((B, K, D), (B, D), (M, D)))
    target_rows, negative_rows = np.arange(B), np.arange(3, 3 + M)  # 3, 4 and 5 are targets of other users
    log_q = np.log(rng.random(20)).astype(np.float32)
    total = 0.0
    for b in range(B):
        to_target = interests[b] @ targets[b]
        if readout == "max":
            right, wrong = to_target.max(), (interests[b] @ negatives.T).max(axis=0)
        else:
            powers = np.exp(to_target**3)
            share = powers / powers.sum() if readout == "soft" else np.arange(K) == to_target.argmax()
            user = share @ interests[b]
            right, wrong = user @ targets[b], negatives @ user
        other = negative_rows != target_rows[b]
        logits = np.r_[right, wrong[other]] / loss.temperature - log_q[np.r_[b, negative_rows[other]]]
        total += np.log(np.exp(logits).sum()) - logits[0]
    users, right, wrong = (paddle.to_tensor(array.astype(np.float32)) for array in (interests, targets, negatives))
    added = paddle.to_tensor(corrections(target_rows, negative_rows, log_q))
    assert float(sampled_softmax(users, right, wrong, added, loss)) == pytest.approx(total / B, rel=1e-4)
