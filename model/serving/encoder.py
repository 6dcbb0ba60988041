"""MIND's serving half in NumPy: embeddings of a history to interest vectors, without Paddle.

Serving runs here because NumPy takes a fifth of the time of Paddle's fastest way on a CPU, and needs no import of
several hundred megabytes. Training on a CPU runs here, too, with `model/training/gradient.py`; a test keeps Paddle's
operators for accelerators, `model/training/net.py`, equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

from configs.schema import Network
from model.arrays import FloatArray, IdVector
from model.artifact import Artifact, ArtifactError

#: Added to squared lengths before a root or a division: vectors of length 0 stay 0 instead of becoming NaN.
EPSILON = 1e-12
#: Logarithm of the weight of padding: its exponential is 0.
NEVER = np.float32(-1e9)


@dataclass(frozen=True)
class Routing:
    """What the encoder computes beside its weights; stored in the artifact's manifest.

    Attributes:
        iterations: of dynamic routing, at least 1.
        temperature: divides the agreement of capsule and click; smaller = harder assignment of clicks to interests.
        axis: what the routing softmax runs over, "interests" as published, or "clicks".
        normalise: capsules are weighted means of clicks instead of squashed sums, and interests have length 1.
        relu: whether the last layer is ReLU(x W + b), as published, or x W.
        residual: weight of the history's mean in what enters the last layer, beside 1 for the capsule; 0 = none.
        by_history: a user has max(1, min(K, ⌊log2 clicks⌋)) interests (arXiv 1904.08030, equation 9); the others
            repeat the first.
        fusion: how the items that the interests find are merged, from 0 to 1: see `model.serving.merge`.
    """

    iterations: int
    temperature: float
    axis: Literal["interests", "clicks"]
    normalise: bool
    relu: bool
    residual: float
    by_history: bool
    fusion: float = 0.0

    def surplus(self, lengths: IdVector, interests: int) -> FloatArray:
        """(B, K), 1 for interests that users with so many clicks, (B,), do not have, else 0."""
        if not self.by_history:
            return np.zeros((len(lengths), interests), np.float32)
        has = np.log2(np.maximum(lengths, 2)).astype(np.int64)  # (B,)
        return (np.arange(interests) >= has[:, None]).astype(np.float32)

    @classmethod
    def of(cls, network: Network) -> Routing:
        """The part of a training configuration that the encoder's computation depends on."""
        return cls(
            iterations=network.iterations,
            temperature=network.routing_temperature,
            axis=network.routing_axis,
            normalise=network.normalise,
            relu=network.relu,
            residual=network.residual,
            by_history=network.interests_by_history,
            fusion=network.fusion,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Routing:
        """Raises TypeError for other keys than the fields; artifacts from before fusion merge without it."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Trace(NamedTuple):
    """What an `Encoder` computes on the way to interests, all float32.

    Attributes:
        log_weight: (B, 1, L), logarithm of each click's weight; `NEVER` = padding.
        logits, routed: (B, K, L), of the routing's last iteration, and how much of each click feeds each interest.
        share: (B, 1, L), how much of each click is in the history's mean.
        capsules, mixed, projected: (B, K, D), sums of the clicks; squashed and mixed with the mean; mapped.
        interests: (B, K, D).
    """

    log_weight: FloatArray
    logits: FloatArray
    routed: FloatArray
    share: FloatArray
    capsules: FloatArray
    mixed: FloatArray
    projected: FloatArray
    interests: FloatArray


class Encoder:
    """Dynamic routing of MIND (arXiv 1904.08030, section 4.3), with routing logits that are fixed, not redrawn.

    Weights, all float32: `bilinear` (D, D) is S, `start` (K, L) holds the first routing logits and `recency` (L,) the
    logarithm of a click's weight, both by age (column 0 = the newest click), `output` (D, D) and `bias` (D,).

    Attributes:
        weights, routing: as given. dim: D. interests: K. history_length: L.
        fusion: of the items found, for `model.serving.merge`.
    """

    def __init__(self, weights: Mapping[str, FloatArray], routing: Routing) -> None:
        """Raises ArtifactError when weights are missing or their shapes don't fit together."""
        missing = {"bilinear", "start", "recency", "output", "bias"} - set(weights)
        if missing:
            raise ArtifactError(f"weights {sorted(missing)} are missing; train the model again with this version")
        self.weights = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
        self.dim = len(self.weights["bias"])
        self.interests, self.history_length = self.weights["start"].shape
        expected = [(self.dim, self.dim), (self.interests, self.history_length), (self.history_length,)]
        if [self.weights[name].shape for name in ("bilinear", "start", "recency")] != expected:
            raise ArtifactError("the shapes of the weights don't fit together; train the model again")
        self.fusion = routing.fusion
        self.routing = routing
        self._maps_nothing = np.array_equal(self.weights["bilinear"], np.eye(self.dim))

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Encoder:
        """Raises ArtifactError when the artifact's weights or description are not this encoder's."""
        try:
            routing = Routing.from_dict(artifact.encoder)
        except TypeError:
            known = ", ".join(field.name for field in fields(Routing))
            remedy = f"this version knows {known}; train the model again with it"
            raise ArtifactError(f"{artifact.path}: encoder description {artifact.encoder}; {remedy}") from None
        encoder = cls(artifact.weights, routing)
        found = (encoder.dim, encoder.interests, encoder.history_length)
        if found != (artifact.dim, artifact.interests, artifact.history_length):
            raise ArtifactError(f"{artifact.path}: manifest and weights disagree on the dimensions; train again")
        return encoder

    def encode(self, embeddings: FloatArray, lengths: IdVector) -> FloatArray:
        """Interest vectors of B users; a user of length 0 has zero vectors.

        Args:
            embeddings: (B, L, D) float32, item vectors of the clicks, oldest first, left-aligned (`model_input`); rows
                beyond a user's length are ignored, whatever finite numbers they hold.
            lengths: (B,), clicks of each user, 0 to L.

        Returns:
            (B, K, D) float32.
        """
        return self.trace(embeddings, lengths).interests

    def route(self, embeddings: FloatArray, lengths: IdVector) -> FloatArray:
        """Routing weights, (B, K, L) float32, of what `encode` is given: how much of each click feeds each interest."""
        return self.trace(embeddings, lengths).routed

    def trace(self, embeddings: FloatArray, lengths: IdVector) -> Trace:
        """`encode`, with what a gradient needs of the way there."""
        mapped, log_weight = self._mapped(embeddings), self._log_weight(lengths)
        logits = self._logits(mapped, lengths, log_weight)
        routed = self._last_weights(logits, log_weight)
        capsules: FloatArray = routed @ mapped
        mixed = capsules if self.routing.normalise else _squash(capsules)
        share = softmax(log_weight, axis=2)
        if self.routing.residual:
            mixed = _mixed(mixed, share @ embeddings, self.routing.residual)
        projected = (mixed.reshape(-1, self.dim) @ self.weights["output"]).reshape(mixed.shape)
        if self.routing.relu:
            projected = np.maximum(projected + self.weights["bias"], np.float32(0))
        interests = _unit(projected) if self.routing.normalise else projected
        if self.routing.by_history:
            surplus = self.routing.surplus(lengths, self.interests)[:, :, None] > 0  # (B, K, 1)
            interests = np.where(surplus, interests[:, :1], interests)
        known = np.where((lengths > 0)[:, None, None], interests, np.float32(0))
        return Trace(log_weight, logits, routed, share, capsules, mixed, projected, known)

    def _logits(self, mapped: FloatArray, lengths: IdVector, log_weight: FloatArray) -> FloatArray:
        """Of the last iteration: (B, L, D), (B,), (B, 1, L) → (B, K, L). Capsules enter the agreement through products
        of clicks alone, so these are all that the loop needs.
        """
        # (B, K, L), in this order in memory, too: transposed, a softmax takes three times as long. What it holds for
        # padding is unused.
        logits = self.weights["start"][np.arange(self.interests)[:, None], self.age(lengths)[:, None]]
        if self.routing.by_history:
            logits = logits + NEVER * self.routing.surplus(lengths, self.interests)[:, :, None]
        # (B, L, L). With one array on both sides NumPy takes BLAS' syrk, which is slower for matrices so small.
        products = mapped @ mapped.copy().transpose(0, 2, 1)
        for _ in range(self.routing.iterations - 1):
            weights = self._weights(logits, log_weight)
            agreement = weights @ products  # (B, K, L)
            square = np.einsum("bkl,bkl->bk", agreement, weights)[:, :, None]  # squared length of the capsules
            scale = np.sqrt(square + np.float32(EPSILON)) / (1 + square) / np.float32(self.routing.temperature)
            logits = logits + agreement * scale
        return logits

    def _last_weights(self, logits: FloatArray, log_weight: FloatArray) -> FloatArray:
        if not self.routing.normalise:
            return self._weights(logits, log_weight)
        # The mean of each interest's clicks: with hardly a click it still points somewhere, in a stable way.
        if self.routing.axis == "interests":
            logits = _log_softmax(logits, axis=1)
        return softmax(logits + log_weight, axis=2)

    def age(self, lengths: IdVector) -> IdVector:
        """(B, L) of each place in histories of these lengths, (B,): 0 = newest click, negative = padding."""
        return lengths[:, None] - 1 - np.arange(self.history_length)

    def _log_weight(self, lengths: IdVector) -> FloatArray:
        age = self.age(lengths)
        return np.where(age >= 0, self.weights["recency"][age], NEVER)[:, None, :]  # (B, 1, L)

    def _mapped(self, embeddings: FloatArray) -> FloatArray:
        if self._maps_nothing:
            return embeddings
        return (embeddings.reshape(-1, self.dim) @ self.weights["bilinear"]).reshape(embeddings.shape)

    def _weights(self, logits: FloatArray, log_weight: FloatArray) -> FloatArray:
        if self.routing.axis == "clicks":
            return softmax(logits + log_weight, axis=2)
        return softmax(logits, axis=1) * np.exp(log_weight)


def softmax(logits: FloatArray, axis: int) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(axis=axis, keepdims=True))
    powers /= powers.sum(axis=axis, keepdims=True)
    return powers


def _log_softmax(logits: FloatArray, axis: int) -> FloatArray:
    shifted = logits - logits.max(axis=axis, keepdims=True)
    logarithm: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return logarithm


def _mixed(capsules: FloatArray, mean: FloatArray, residual: float) -> FloatArray:
    """(B, K, D) weighted mean of 1 part capsule and `residual` parts of the history's mean, (B, 1, D)."""
    part = np.float32(1 / (1 + residual))
    mixed: FloatArray = part * capsules + (1 - part) * mean
    return mixed


def _squash(capsules: FloatArray) -> FloatArray:
    """c · |c|² / (1 + |c|²) / |c| along the last axis (arXiv 1710.09829, equation 1)."""
    square = _square(capsules)
    scaled: FloatArray = capsules * (square / (1 + square) / np.sqrt(square + np.float32(EPSILON)))
    return scaled


def _unit(vectors: FloatArray) -> FloatArray:
    scaled: FloatArray = vectors / np.sqrt(_square(vectors) + np.float32(EPSILON))
    return scaled


def _square(vectors: FloatArray) -> FloatArray:
    square: FloatArray = np.einsum("...d,...d->...", vectors, vectors)[..., None]
    return square
