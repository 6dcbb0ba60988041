"""MIND in Paddle, for training. `model/encoder.py` computes the same interests in NumPy, for serving.

Weights come from NumPy and go back to NumPy, so that a seed decides them and Paddle's own generator is never used.
Only functions that Paddle 2.6 and 3.x share.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from configs.schema import Loss, Network
from model.encoder import EPSILON, NEVER, Routing


@contextlib.contextmanager
def _other_home() -> Iterator[None]:
    """Paddle makes a folder for data sets in the user's home on import; nothing of it is used here."""
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            if home is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = home


with _other_home(), warnings.catch_warnings():
    # Paddle looks for a compiler cache on import; nothing is compiled here.
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle
    import paddle.nn.functional as F  # noqa: N812 - its name everywhere
    from paddle import Tensor

__all__ = ["Mind", "corrections", "initial_weights", "paddle", "routing_of", "sampled_softmax"]

FloatArray = npt.NDArray[np.float32]
IdVector = npt.NDArray[np.int64]

_ZEROS = paddle.nn.initializer.Constant(0.0)


def routing_of(network: Network) -> Routing:
    """The part of the configuration that the encoder's computation depends on."""
    output = "unit" if network.normalise else "relu"
    return Routing(network.iterations, network.routing_temperature, output, network.residual)  # type: ignore[arg-type]


def initial_weights(network: Network, items: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    """First weights by name; row 0 of `table` (items + 1, D) is padding."""
    D, K, L = network.dim, network.interests, network.history_length

    def normal(*shape: int) -> FloatArray:
        return rng.standard_normal(shape, dtype=np.float32)

    table = normal(items + 1, D) * np.float32(D**-0.5)
    table[0] = 0
    # The maps start as the identity: a fresh network already places a user near the mean of its items.
    maps = {"bilinear": np.eye(D, dtype=np.float32), "output": np.eye(D, dtype=np.float32)}
    zeros = {"recency": np.zeros(L, np.float32), "bias": np.zeros(D, np.float32)}
    return {"table": table, **maps, "start": normal(K, L), **zeros}


class Mind(paddle.nn.Layer):  # type: ignore[misc]  # untyped in Paddle 2.6
    """Multi-interest network with dynamic routing (arXiv 1904.08030); the shapes' letters are those of `Encoder`."""

    def __init__(self, weights: Mapping[str, FloatArray], network: Network) -> None:
        super().__init__()
        self._routing = routing_of(network)
        self._normalise = network.normalise
        trained = {"table", "output"}
        trained |= {"bilinear"} if network.routing_map == "learned" else set()
        trained |= {"start"} if network.start == "learned" else set()
        trained |= {"recency"} if network.recency else set()
        trained |= set() if network.normalise else {"bias"}
        for name, value in weights.items():
            parameter = self.create_parameter(list(value.shape), default_initializer=_ZEROS)
            parameter.set_value(value)
            parameter.stop_gradient = name not in trained
            self.add_parameter(name, parameter)

    def vectors(self, rows: Tensor) -> Tensor:
        """Item vectors of rows, (…,) int64 → (…, D); zeros for row 0. Their gradient has the used rows alone."""
        vectors = F.embedding(rows, self.table, sparse=True)
        vectors = vectors * (rows > 0).astype("float32").unsqueeze(-1)  # keeps row 0 at zero
        return _unit(vectors) if self._normalise else vectors

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Interests of users from item vectors: (B, L, D) float32, (B,) int64 → (B, K, D)."""
        L = embeddings.shape[1]
        age = lengths.unsqueeze(1) - 1 - paddle.arange(L).unsqueeze(0)  # (B, L), 0 = newest, negative = padding
        padding = (age < 0).astype("float32") * float(NEVER)  # (B, L)
        age = paddle.clip(age, min=0)
        log_weight = _by_age(self.recency, age) + padding  # (B, L)
        mapped = paddle.matmul(embeddings, self.bilinear)  # (B, L, D)
        routed = self.routing_weights(mapped, age, log_weight.unsqueeze(2))  # (B, L, K)
        capsules = paddle.matmul(routed, mapped, transpose_x=True)  # (B, K, D)
        capsules = _unit(capsules) if self._routing.output == "unit" else _squash(capsules)
        if self._routing.residual:
            mean = paddle.matmul(F.softmax(log_weight, axis=1).unsqueeze(1), embeddings)  # (B, 1, D)
            capsules = capsules + self._routing.residual * mean
        projected = paddle.matmul(capsules, self.output)  # (B, K, D)
        interests = _unit(projected) if self._routing.output == "unit" else F.relu(projected + self.bias)
        return interests * (lengths > 0).astype("float32").reshape([-1, 1, 1])

    def routing_weights(self, mapped: Tensor, age: Tensor, log_weight: Tensor) -> Tensor:
        """Weight of each click in each interest after the last iteration: (B, L, D), (B, L), (B, L, 1) → (B, L, K).

        Gradients reach `start` and `recency` through the last softmax, and nothing through the agreements before it.
        """
        logits = _by_age(self.start.t(), age)  # (B, L, K)
        fixed = mapped.detach()
        for _ in range(self._routing.iterations - 1):
            routed = (F.softmax(logits, axis=2) * paddle.exp(log_weight)).detach()  # (B, L, K)
            capsules = _squash(paddle.matmul(routed, fixed, transpose_x=True))  # (B, K, D)
            logits = logits + paddle.matmul(fixed, capsules, transpose_y=True) / self._routing.temperature
        if self._routing.output == "unit":
            return F.softmax(F.log_softmax(logits, axis=2) + log_weight, axis=1)
        return F.softmax(logits, axis=2) * paddle.exp(log_weight)

    def weights(self) -> dict[str, FloatArray]:
        """Present weights by name, copied to NumPy."""
        return {name: np.array(value.numpy()) for name, value in self.named_parameters()}


def sampled_softmax(interests: Tensor, targets: Tensor, negatives: Tensor, corrections: Tensor, loss: Loss) -> Tensor:
    """Cross entropy of the target among the batch's shared negatives, averaged over B users.

    Args:
        interests: (B, K, D); targets: (B, D), vectors of the items clicked next; negatives: (M, D).
        corrections: (B, 1 + M), see the function of that name.
        loss: its readout decides which interest a user is scored with: "max" = target and negatives alike by the best
            one, as in serving; "hard" = by the target's best one; "soft" = by softmax((u · target)^power).
    """
    to_target = paddle.matmul(interests, targets.unsqueeze(2)).squeeze(2)  # (B, K)
    if loss.readout == "max":
        # Paddle's max over an axis takes a second for the gradient of a batch; the maximum of pairs takes 30 ms.
        users = [user / loss.temperature for user in paddle.unbind(interests, axis=1)]  # K of (B, D)
        wrong = _largest([paddle.matmul(user, negatives, transpose_y=True) for user in users])  # (B, M)
        right = _largest(paddle.unbind(to_target, axis=1)) / loss.temperature  # (B,)
    else:
        share = F.softmax(to_target**loss.power, axis=1)  # (B, K)
        if loss.readout == "hard":
            share = F.one_hot(to_target.argmax(axis=1), to_target.shape[1])  # (B, K)
        user = paddle.matmul(share.unsqueeze(1), interests).squeeze(1) / loss.temperature  # (B, D)
        wrong = paddle.matmul(user, negatives, transpose_y=True)  # (B, M)
        right = (user * targets).sum(axis=1)  # (B,)
    logits = paddle.concat([right.unsqueeze(1), wrong], axis=1) + corrections  # (B, 1 + M)
    return F.cross_entropy(logits, paddle.zeros([len(targets)], dtype="int64"))


def corrections(targets: IdVector, negatives: IdVector, log_q: FloatArray) -> FloatArray:
    """What is added to the scores of (B,) targets and (M,) negatives, rows: (B, 1 + M) float32, the target first.

    The logarithm of the probability to be drawn is subtracted; a negative that is the target itself does not count.
    """
    added = np.empty((len(targets), 1 + len(negatives)), np.float32)
    added[:, 0] = -log_q[targets]
    added[:, 1:] = np.where(targets[:, None] == negatives, NEVER, -log_q[negatives])  # an exponential of 0
    return added


def _by_age(values: Tensor, age: Tensor) -> Tensor:
    """values[age]: (L, …), (B, L) → (B, L, …)."""
    return paddle.gather(values, age.reshape([-1])).reshape([*age.shape, *values.shape[1:]])


def _largest(scores: Sequence[Tensor]) -> Tensor:
    return functools.reduce(paddle.maximum, scores)


def _squash(capsules: Tensor) -> Tensor:
    square = (capsules * capsules).sum(axis=-1, keepdim=True)
    return capsules * (square / (1 + square) / paddle.sqrt(square + EPSILON))


def _unit(vectors: Tensor) -> Tensor:
    return vectors / paddle.sqrt((vectors * vectors).sum(axis=-1, keepdim=True) + EPSILON)
