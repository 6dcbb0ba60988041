"""MIND in Paddle, for training.

On a CPU, interests are computed by the serving encoder, `model/serving/encoder.py`, and its gradients, `gradient.py`;
on other devices by Paddle's operators. A test compares the two.

Weights are initialised and returned as NumPy arrays, so that only the seed decides them; Paddle's own generator is
never used. Only functions that exist in both Paddle 2.6 and 3.x are called.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from configs.schema import Network
from model.arrays import FloatArray
from model.serving.encoder import EPSILON, LOG_ZERO, Encoder, Routing
from model.training.backend import F, Tensor, paddle
from model.training.gradient import Encode

_ZEROS = paddle.nn.initializer.Constant(0.0)


def initial_table(network: Network, items: int, rng: np.random.Generator) -> FloatArray:
    """Return initial item embeddings, (items + 1, D); row 0 is padding."""
    table: FloatArray = rng.standard_normal((items + 1, network.dim), dtype=np.float32)
    table *= np.float32(network.initial_length * network.dim**-0.5)
    table[0] = 0
    return table


def initial_weights(network: Network, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Return initial weights by name, as `Encoder` reads them."""
    D, K, L = network.dim, network.interests, network.history_length
    # The maps start as the identity, so that an untrained network already places a user near the mean of its items.
    maps = {"bilinear": np.eye(D, dtype=np.float32), "output": np.eye(D, dtype=np.float32)}
    zeros = {"recency": np.zeros(L, np.float32), "bias": np.zeros(D, np.float32)}
    return {**maps, "start": rng.standard_normal((K, L), dtype=np.float32), **zeros}


def item_vectors(embeddings: Tensor, network: Network) -> Tensor:
    """Convert rows of the table to the vectors that the network reads and scores, (…, D) → (…, D); zeros stay zeros."""
    return _unit(embeddings) if network.normalise else embeddings


class Mind(paddle.nn.Layer):  # type: ignore[misc]  # untyped in Paddle 2.6
    """Multi-interest network with dynamic routing (arXiv 1904.08030); shapes and weights as in `Encoder`."""

    def __init__(self, weights: Mapping[str, FloatArray], network: Network, *, agreement_learns: bool = False) -> None:
        """
        Args:
            agreement_learns: let gradients pass through the last agreement, for a penalty on the routing weights.
        """
        super().__init__()
        self._routing = Routing.from_network(network)
        self._agreement_learns = agreement_learns
        trained = {"output"} if network.output_map == "learned" else set()
        trained |= {"bilinear"} if network.routing_map == "learned" else set()
        trained |= {"start"} if network.start == "learned" else set()
        trained |= {"recency"} if network.recency else set()
        trained |= {"bias"} if network.relu else set()
        for name, value in weights.items():
            parameter = self.create_parameter(list(value.shape), default_initializer=_ZEROS)
            parameter.set_value(value)
            parameter.stop_gradient = name not in trained
            self.add_parameter(name, parameter)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Return interests of users from item vectors: (B, L, D) float32, (B,) int64 → (B, K, D)."""
        if not embeddings.place.is_cpu_place():
            return self.by_operators(embeddings, lengths)[0]
        trained = {name: weight for name, weight in self.named_parameters() if not weight.stop_gradient}
        encoder = Encoder(self.weights(), self._routing)
        return Encode.apply(embeddings, lengths.numpy(), encoder, list(trained), *trained.values())

    def by_operators(self, embeddings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `forward` by Paddle's operators; return interests and routing weights, (B, K, L), 0 for padding."""
        age = self._age(lengths, embeddings.shape[1])
        log_weight = self._log_weight(age)  # (B, 1, L)
        logits = _by_age(self.start.t(), age).transpose([0, 2, 1])  # (B, K, L)
        unused = self._routing.surplus(lengths.numpy(), self.start.shape[0])[:, :, None]
        surplus = paddle.to_tensor(unused)  # (B, K, 1), 1 = not used

        mapped = paddle.matmul(embeddings, self.bilinear)  # (B, L, D)
        routed = self._routed(mapped, logits + surplus * float(LOG_ZERO), log_weight)  # (B, K, L)
        capsules = paddle.matmul(routed, mapped)  # (B, K, D)
        if not self._routing.normalise:
            capsules = _squash(capsules)
        if self._routing.residual:
            part = 1 / (1 + self._routing.residual)
            capsules = part * capsules + (1 - part) * _mean(embeddings, log_weight)
        interests = self._project(capsules)
        if self._routing.by_history:
            interests = interests + surplus * (interests[:, :1] - interests)
        return interests * (lengths > 0).astype("float32").reshape([-1, 1, 1]), routed

    def history_vector(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Return one vector for the whole history, (B, 1, D): the limit of the interests for a large residual."""
        return self._project(_mean(embeddings, self._log_weight(self._age(lengths, embeddings.shape[1]))))

    def _project(self, capsules: Tensor) -> Tensor:
        interests = paddle.matmul(capsules, self.output)
        if self._routing.relu:
            interests = F.relu(interests + self.bias)
        return _unit(interests) if self._routing.normalise else interests

    @staticmethod
    def _age(lengths: Tensor, L: int) -> Tensor:
        return lengths.unsqueeze(1) - 1 - paddle.arange(L).unsqueeze(0)  # (B, L), 0 = newest, negative = padding

    def _log_weight(self, age: Tensor) -> Tensor:
        """Return the logarithm of each click's weight, (B, 1, L)."""
        padding = (age < 0).astype("float32") * float(LOG_ZERO)
        return (_by_age(self.recency, age) + padding).unsqueeze(1)

    def _routed(self, mapped: Tensor, logits: Tensor, log_weight: Tensor) -> Tensor:
        """Return the weight of each click in each interest: (B, L, D), (B, K, L), (B, 1, L) → (B, K, L).

        Capsules enter the agreement only through inner products of clicks, so the loop needs only these. Gradients pass
        through the last softmax; through the agreement of the last iteration only with a penalty on it.
        """
        routing = self._routing
        similar = _products(mapped.detach())  # (B, L, L)
        for left in range(routing.iterations - 1, 0, -1):
            if left == 1 and self._agreement_learns:
                similar = _products(mapped)
            weights = self._weights(logits, log_weight).detach()  # (B, K, L)
            products = paddle.matmul(weights, similar)  # (B, K, L)
            square = (products * weights).sum(axis=2, keepdim=True)  # (B, K, 1), squared length of the capsules
            logits = logits + products * (paddle.sqrt(square + EPSILON) / (1 + square) / routing.temperature)
        if not routing.normalise:
            return self._weights(logits, log_weight)
        if routing.axis == "interests":
            logits = _log_softmax(logits)
        return _zero_padding(F.softmax(logits + log_weight, axis=2), log_weight)

    def _weights(self, logits: Tensor, log_weight: Tensor) -> Tensor:
        if self._routing.axis == "clicks":
            return _zero_padding(F.softmax(logits + log_weight, axis=2), log_weight)
        return _zero_padding(paddle.exp(_log_softmax(logits) + log_weight), log_weight)

    def weights(self) -> dict[str, FloatArray]:
        """Return the current weights by name, copied to NumPy."""
        return {name: np.array(value.numpy()) for name, value in self.named_parameters()}


def _by_age(values: Tensor, age: Tensor) -> Tensor:
    """Return values[age]: (L, …), (B, L) → (B, L, …); negative ages read the first value."""
    return paddle.gather(values, paddle.clip(age, min=0).reshape([-1])).reshape([*age.shape, *values.shape[1:]])


def _products(clicks: Tensor) -> Tensor:
    """Return inner products of all pairs of a user's clicks, (B, L, D) → (B, L, L)."""
    return paddle.matmul(clicks, clicks, transpose_y=True)


def _mean(embeddings: Tensor, log_weight: Tensor) -> Tensor:
    """Return the weighted mean of the history, (B, L, D), (B, 1, L) → (B, 1, D)."""
    return paddle.matmul(_zero_padding(F.softmax(log_weight, axis=2), log_weight), embeddings)


def _zero_padding(weights: Tensor, log_weight: Tensor) -> Tensor:
    """Set weights of padding to 0: Paddle's exponential of a very negative number is 3e-39, and products with such
    denormal numbers take ten times as long.
    """
    return weights * (log_weight > float(LOG_ZERO) / 2).astype("float32")


def _log_softmax(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax over the interests, (B, K, L).

    Paddle's own function takes ten times as long on an axis that is not the last.
    """
    shifted = logits - logits.detach().max(axis=1, keepdim=True)
    return shifted - paddle.log(paddle.exp(shifted).sum(axis=1, keepdim=True))


def _squash(capsules: Tensor) -> Tensor:
    square = (capsules * capsules).sum(axis=-1, keepdim=True)
    return capsules * (square / (1 + square) / paddle.sqrt(square + EPSILON))


def _unit(vectors: Tensor) -> Tensor:
    return vectors / paddle.sqrt((vectors * vectors).sum(axis=-1, keepdim=True) + EPSILON)
