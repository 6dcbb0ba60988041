"""The towers in Paddle equal those in NumPy."""

from __future__ import annotations

import numpy as np

from model.fusion import net, towers
from model.fusion.vocabulary import Vocabulary
from model.training.backend import paddle
from tests.unit.model.fusion.small import config, ratings

DATA = ratings()[0]
NETWORK = config("network.windows=[1,2,3]").network
VOCABULARY = Vocabulary.from_films(DATA.films)


def test_both_towers_equal_numpys() -> None:
    rng = np.random.default_rng(0)
    weights = net.initial_weights(NETWORK, VOCABULARY, rng)
    tensors = {name: paddle.to_tensor(value) for name, value in weights.items()}
    ids = net.initial_ids(len(DATA.films), NETWORK, rng)[1:]
    films, attributes = VOCABULARY.read(DATA.films), np.array(DATA.profiles[: len(ids)])
    pairs = [
        (net.film_vectors(tensors, paddle.to_tensor(ids), films), towers.film_vectors(weights, ids, films)),
        (net.user_vectors(tensors, paddle.to_tensor(ids), attributes), towers.user_vectors(weights, ids, attributes)),
    ]
    for in_paddle, in_numpy in pairs:
        np.testing.assert_allclose(in_paddle.numpy(), in_numpy, atol=1e-5)


def test_every_weight_gets_a_gradient() -> None:
    weights = net.initial_weights(NETWORK, VOCABULARY, np.random.default_rng(0))
    tensors = {name: paddle.to_tensor(value, stop_gradient=False) for name, value in weights.items()}
    ids = paddle.to_tensor(net.initial_ids(50, NETWORK, np.random.default_rng(1))[1:])
    u = net.user_vectors(tensors, ids, np.array(DATA.profiles[:50]))
    v = net.film_vectors(tensors, ids, VOCABULARY.read(DATA.films[:50]))
    (u * v).sum().backward()
    for name, tensor in tensors.items():
        assert np.abs(tensor.grad.numpy()).max() > 0, name
    assert not tensors["word"].grad.numpy()[0].any(), "padding is trained"


def test_an_untrained_network_predicts_an_average_rating() -> None:
    weights = net.initial_weights(NETWORK, VOCABULARY, np.random.default_rng(0))
    cosine = weights["user_bias"] @ weights["film_bias"]
    assert 3 < towers.SCALE * cosine < 4
