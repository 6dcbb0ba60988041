"""The network in training: the serving encoder and Paddle's operators give equal values and gradients.

Gradients reach only the weights that are trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import FOLDER, load_train
from configs.schema import TrainConfig
from model.arrays import FloatArray, IntVector
from model.serving.encoder import Encoder, Routing
from model.training.backend import paddle
from model.training.learner import Learner
from model.training.net import Mind, initial_weights, item_vectors
from model.training.sampling import TrainingBatch

ITEMS = 50
PAPER = FOLDER / "mind-paper.yaml"
#: All configurations that change what the encoder computes and what is trained.
VARIANTS: dict[str, tuple[Path | None, list[str]]] = {
    "default": (None, []),
    "paper": (PAPER, []),
    "paper, softmax over clicks": (PAPER, ["network.routing_axis=clicks"]),
    "paper, interests by history": (PAPER, ["network.interests_by_history=true"]),
    "paper, learned start": (PAPER, ["network.start=learned", "network.recency=true"]),
    "paper, softmax over clicks, learned start": (PAPER, ["network.start=learned", "network.routing_axis=clicks"]),
    "paper, residual": (PAPER, ["network.residual=0.5", "network.recency=true"]),
    "paper, without ReLU": (PAPER, ["network.relu=false"]),
    "paper, without W": (PAPER, ["network.relu=false", "network.output_map=identity"]),
    "one interest": (None, ["network.interests=1"]),
    "ReLU": (None, ["network.relu=true"]),
    "softmax over clicks": (None, ["network.routing_axis=clicks"]),
    "interests by history": (None, ["network.interests_by_history=true"]),
    "residual": (None, ["network.residual=0.5"]),
    "learned start, no map": (None, ["network.start=learned", "loss.readout=max"]),
    "no recency": (None, ["network.recency=false", "network.iterations=1"]),
}


def config_of(variant: str, *overrides: str) -> TrainConfig:
    path, given = VARIANTS[variant]
    return load_train(path, ["network.dim=16", "network.history_length=7", *given, *overrides], {})


def random_net(config: TrainConfig, seed: int = 0) -> tuple[Mind, dict[str, FloatArray]]:
    """Return a network whose weights are all random, even those that training initialises with the identity or zero."""
    rng = np.random.default_rng(seed)
    weights = initial_weights(config.network, rng)
    for value in weights.values():
        value += 0.3 * rng.standard_normal(value.shape, dtype=np.float32)
    return Mind(weights, config.network), weights


def random_users(B: int, L: int, seed: int = 0) -> tuple[Any, IntVector]:
    """Return item vectors of histories, (B, L, 16), with random padding, and the lengths of the histories, (B,)."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((B, L, 16), dtype=np.float32)
    return paddle.to_tensor(embeddings / np.linalg.norm(embeddings, axis=2, keepdims=True)), rng.integers(0, L + 1, B)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_encoder_equals_the_network(variant: str, seed: int) -> None:
    config = config_of(variant)
    net, weights = random_net(config, seed)
    embeddings, lengths = random_users(200, 7, seed)
    trained, routed = net.by_operators(embeddings, paddle.to_tensor(lengths))
    encoder = Encoder(weights, Routing.from_network(config.network))
    assert np.abs(encoder.encode(embeddings.numpy(), lengths) - trained.numpy()).max() <= 1e-5
    assert np.abs(encoder.route(embeddings.numpy(), lengths) - routed.numpy())[lengths > 0].max() <= 1e-5
    assert np.abs(trained.numpy()).max() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradients_of_both_implementations_are_equal(variant: str) -> None:
    net, _ = random_net(config_of(variant))
    embeddings, lengths = random_users(200, 7)
    embeddings.stop_gradient = False
    upstream = paddle.to_tensor(np.random.default_rng(1).standard_normal((200, net.start.shape[0], 16), np.float32))
    leaves = {"embeddings": embeddings} | {n: w for n, w in net.named_parameters() if not w.stop_gradient}
    found = []
    for interests in (
        net(embeddings, paddle.to_tensor(lengths)),
        net.by_operators(embeddings, paddle.to_tensor(lengths))[0],
    ):
        (interests * upstream).sum().backward()
        found.append({name: np.array(leaf.grad.numpy()) for name, leaf in leaves.items()})
        for leaf in leaves.values():
            leaf.clear_gradient()
    for name, expected in found[1].items():
        largest = np.abs(expected).max()
        assert largest > 1e-2, name
        assert np.abs(found[0][name] - expected).max() <= 1e-4 * largest, name


@pytest.mark.parametrize("relu", [False, True])
def test_readout_mean_trains_the_encoder_of_one_interest(relu: bool) -> None:
    """Several interests approach the same vector if the residual is large."""
    config = config_of("one interest", f"network.relu={relu}", "network.iterations=1")
    weights = random_net(config)[1] | {"bilinear": np.eye(16, dtype=np.float32)}  # not trained by this readout
    net = Mind(weights, config.network)
    embeddings, lengths = random_users(200, 7)
    lengths = np.maximum(lengths, 1)
    history = net.history_vector(embeddings, paddle.to_tensor(lengths)).numpy()
    one = Encoder(weights, Routing.from_network(config.network)).encode(embeddings.numpy(), lengths)
    assert np.abs(one - history).max() <= 1e-5
    many = config_of("default", f"network.relu={relu}", "network.residual=1e6")
    weights |= {"start": initial_weights(many.network, np.random.default_rng(1))["start"]}
    near = Encoder(weights, Routing.from_network(many.network)).encode(embeddings.numpy(), lengths)
    assert np.abs(near - history).max() <= 1e-4


def test_padding_does_not_change_interests() -> None:
    net, _ = random_net(config_of("default"))
    embeddings, lengths = random_users(50, 7)
    other = paddle.where(paddle.arange(7).unsqueeze(0).unsqueeze(2) < paddle.to_tensor(lengths).reshape([-1, 1, 1]),
                         embeddings, 5 * embeddings + 1)  # fmt: skip
    found, expected = (net(vectors, paddle.to_tensor(lengths)).numpy() for vectors in (other, embeddings))
    assert found == pytest.approx(expected, abs=1e-6)
    assert (found[lengths == 0] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_returned_unchanged(variant: str) -> None:
    net, weights = random_net(config_of(variant))
    back = net.weights()
    assert back.keys() == weights.keys()
    assert all((back[name] == weights[name]).all() and back[name].dtype == np.float32 for name in weights)


def test_users_with_few_clicks_repeat_their_first_interest() -> None:
    net, _ = random_net(config_of("interests by history"))
    embeddings, _ = random_users(5, 7)
    interests = net(embeddings, paddle.to_tensor(np.array([1, 3, 4, 7, 2]))).numpy()
    repeats = (np.abs(interests - interests[:, :1]).max(axis=2) < 1e-6).sum(axis=1)
    assert repeats.tolist() == [4, 4, 3, 3, 4]  # floor(log2) interests: 1, 1, 2, 2, 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_step_changes_only_the_used_rows_and_the_trained_weights(variant: str) -> None:
    config = config_of(variant, "loss.targets=2", "loss.readout=max")
    learner = Learner(config, ITEMS, np.zeros(ITEMS + 1, np.float32))
    histories = np.array([[3, 4, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 3, 4]])
    batch = TrainingBatch(histories, np.array([2, 7]), np.array([[10, 11], [12, 0]]), np.array([20, 21, 22, 12]))
    before, weights = learner.state()["table.values"], learner.weights()
    learner.step(batch, 0.01)
    changed = np.flatnonzero((learner.state()["table.values"] != before).any(axis=1))
    assert 0 not in changed
    assert {10, 11, 12, 20, 21, 22} <= set(changed) <= {*range(3, 13), 20, 21, 22}
    changed_weights = {name for name, value in learner.weights().items() if (value != weights[name]).any()}
    network = config.network
    trained = {
        "output": network.output_map == "learned",
        "bilinear": network.routing_map == "learned",
        "bias": network.relu,
    }
    trained |= {"start": network.start == "learned", "recency": network.recency}
    assert changed_weights == {name for name, learns in trained.items() if learns}


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_a_restored_learner_resumes_exactly(variant: str) -> None:
    rng = np.random.default_rng(0)

    def batch() -> TrainingBatch:
        lengths = rng.integers(1, 8, 16)
        histories = rng.integers(1, ITEMS + 1, (16, 7)) * (np.arange(7) < lengths[:, None])
        return TrainingBatch(histories, lengths, rng.integers(1, ITEMS + 1, (16, 1)), rng.integers(1, ITEMS + 1, 20))

    one, other = (Learner(config_of(variant), ITEMS, np.zeros(ITEMS + 1, np.float32)) for _ in range(2))
    for _ in range(3):
        one.step(batch(), 0.01)
    other.restore(one.state())
    for _ in range(3):
        same = batch()
        assert one.step(same, 0.01) == other.step(same, 0.01)
    assert (one.vectors() == other.vectors()).all()


@pytest.mark.parametrize("learns", [False, True])
def test_gradients_pass_through_the_agreement_only_when_it_learns(learns: bool) -> None:
    config = config_of("paper")
    net = Mind(random_net(config)[1], config.network, agreement_learns=learns)
    embeddings, lengths = random_users(8, 7)
    embeddings.stop_gradient = False
    routed = net.by_operators(embeddings, paddle.to_tensor(np.maximum(lengths, 2)))[1]
    if not learns:
        assert routed.stop_gradient
        return
    (routed**2).sum().backward()
    assert np.abs(embeddings.grad.numpy()).max() > 1e-4


def test_item_vectors_have_length_one_except_in_the_published_model() -> None:
    rows = paddle.to_tensor(np.array([[0, 0], [3, 4]], np.float32))
    assert item_vectors(rows, config_of("default").network).numpy() == pytest.approx(np.array([[0, 0], [0.6, 0.8]]))
    assert (item_vectors(rows, config_of("paper").network).numpy() == rows.numpy()).all()
