"""Encode the item vectors of a history into interest vectors: the serving half of MIND, in NumPy, without Paddle.

NumPy takes a fifth of the time that Paddle needs at best on a CPU, and saves importing several hundred megabytes.
Training on a CPU uses this module, too, with `model/training/gradient.py`; on accelerators it uses Paddle's operators
in `model/training/net.py`, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

from configs.schema import Network
from model.arrays import FloatArray, IntVector
from model.artifact import Artifact
from model.artifact_folder import ArtifactError

#: Added to squared lengths before a root or a division, so that vectors of length 0 stay 0 instead of becoming NaN.
EPSILON = 1e-12
#: Replaces the logarithm of 0, for the weight of padding: its exponential is 0, and it is finite.
LOG_ZERO = np.float32(-1e9)


@dataclass(frozen=True)
class Routing:
    """Parameters of the encoder's computation other than its weights; stored in the artifact's manifest.

    Attributes:
        iterations: iterations of dynamic routing, at least 1.
        temperature: divides the agreement of capsule and click; smaller = harder assignment of clicks to interests.
        axis: axis of the routing softmax, "interests" as published, or "clicks".
        normalise: capsules are weighted means of clicks instead of squashed sums, and interests have length 1.
        relu: the last layer is ReLU(x W + b), as published, instead of x W.
        residual: weight of the history's mean in the input of the last layer; the capsule's weight is 1; 0 = no mean.
        by_history: a user has max(1, min(K, ⌊log2 clicks⌋)) interests (arXiv 1904.08030, equation 9); the others
            repeat the first.
        fusion: how the items that the interests recall are merged, 0 to 1; see `model.serving.merge`.
    """

    iterations: int
    temperature: float
    axis: Literal["interests", "clicks"]
    normalise: bool
    relu: bool
    residual: float
    by_history: bool
    fusion: float = 0.0

    def surplus(self, lengths: IntVector, interests: int) -> FloatArray:
        """Return (B, K) float32: 1 for interests that users with these numbers of clicks, (B,), do not have, else 0."""
        if not self.by_history:
            return np.zeros((len(lengths), interests), np.float32)
        has = np.log2(np.maximum(lengths, 2)).astype(np.int64)  # (B,)
        return (np.arange(interests) >= has[:, None]).astype(np.float32)

    @classmethod
    def from_network(cls, network: Network) -> Routing:
        """Select the settings of a training configuration that the encoder's computation depends on."""
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
        """Read a dict that `to_dict` returned; older artifacts lack `fusion`, which is then 0.

        Raises:
            TypeError: the keys are not the fields of this class.
        """
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Trace(NamedTuple):
    """Interests and the intermediate results of an `Encoder`, all float32.

    Attributes:
        log_weight: (B, 1, L), logarithm of each click's weight; `LOG_ZERO` = padding.
        logits: (B, K, L), routing logits of the last iteration.
        routed: (B, K, L), weight of each click in each interest.
        share: (B, 1, L), weight of each click in the history's mean.
        capsules: (B, K, D), sums of the mapped clicks, weighted with `routed`.
        mixed: (B, K, D), capsules, squashed unless `Routing.normalise`, and mixed with the history's mean.
        projected: (B, K, D), `mixed` after the last layer.
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
    """Dynamic routing of MIND (arXiv 1904.08030, section 4.3), with initial routing logits that are fixed, not redrawn.

    Weights, all float32: `bilinear` (D, D) is S of the paper; `start` (K, L) holds the initial routing logits and
    `recency` (L,) the logarithm of a click's weight, both by age (column 0 = the newest click); `output` (D, D) and
    `bias` (D,) are the last layer.

    Attributes:
        weights, routing: as given. dim: D. interests: K. history_length: L.
        fusion: weight of the mean when recalled items are merged (`model.serving.merge`).
    """

    def __init__(self, weights: Mapping[str, FloatArray], routing: Routing) -> None:
        """
        Raises:
            ArtifactError: weights are missing, or their shapes do not fit together.
        """
        missing = {"bilinear", "start", "recency", "output", "bias"} - set(weights)
        if missing:
            raise ArtifactError(f"weights {sorted(missing)} are missing; train the model again with this version")
        self.weights = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
        self.dim = len(self.weights["bias"])
        self.interests, self.history_length = self.weights["start"].shape
        expected = [(self.dim, self.dim), (self.interests, self.history_length), (self.history_length,)]
        if [self.weights[name].shape for name in ("bilinear", "start", "recency")] != expected:
            raise ArtifactError("the shapes of the weights do not fit together; train the model again")
        self.fusion = routing.fusion
        self.routing = routing
        self._map_is_identity = np.array_equal(self.weights["bilinear"], np.eye(self.dim))

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Encoder:
        """Build the encoder of an artifact.

        Raises:
            ArtifactError: the artifact's weights or description do not fit this encoder.
        """
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

    def encode(self, embeddings: FloatArray, lengths: IntVector) -> FloatArray:
        """Return interest vectors of B users; a user of length 0 has zero vectors.

        Args:
            embeddings: (B, L, D) float32, item vectors of the clicks, oldest first, left-aligned (`model_input`); rows
                beyond a user's length are ignored, whatever finite numbers they hold.
            lengths: (B,) int64, number of clicks of each user, 0 to L.

        Returns:
            (B, K, D) float32.
        """
        return self.trace(embeddings, lengths).interests

    def route(self, embeddings: FloatArray, lengths: IntVector) -> FloatArray:
        """Return the weight of each click in each interest, (B, K, L) float32. Arguments as `encode`."""
        return self.trace(embeddings, lengths).routed

    def trace(self, embeddings: FloatArray, lengths: IntVector) -> Trace:
        """Compute interests, and keep the intermediate results that gradients need. Arguments as `encode`."""
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

    def _logits(self, mapped: FloatArray, lengths: IntVector, log_weight: FloatArray) -> FloatArray:
        """Return the routing logits of the last iteration: (B, L, D), (B,), (B, 1, L) → (B, K, L).

        Capsules enter the agreement only through inner products of clicks, so the loop needs only these products.
        """
        # (B, K, L), in memory, too: a softmax of a transposed array takes three times as long. Values for padding are
        # not used.
        logits = self.weights["start"][np.arange(self.interests)[:, None], self.age(lengths)[:, None]]
        if self.routing.by_history:
            logits = logits + LOG_ZERO * self.routing.surplus(lengths, self.interests)[:, :, None]
        # (B, L, L). With the same array on both sides NumPy calls BLAS' syrk, which is slower for such small matrices.
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
        # A mean of clicks, not a sum: an interest that hardly any click belongs to still has a stable direction.
        if self.routing.axis == "interests":
            logits = _log_softmax(logits, axis=1)
        return softmax(logits + log_weight, axis=2)

    def age(self, lengths: IntVector) -> IntVector:
        """Age of each position in histories of these lengths, (B,) → (B, L): 0 = newest click, negative = padding."""
        return lengths[:, None] - 1 - np.arange(self.history_length)

    def _log_weight(self, lengths: IntVector) -> FloatArray:
        age = self.age(lengths)
        return np.where(age >= 0, self.weights["recency"][age], LOG_ZERO)[:, None, :]  # (B, 1, L)

    def _mapped(self, embeddings: FloatArray) -> FloatArray:
        if self._map_is_identity:
            return embeddings
        return (embeddings.reshape(-1, self.dim) @ self.weights["bilinear"]).reshape(embeddings.shape)

    def _weights(self, logits: FloatArray, log_weight: FloatArray) -> FloatArray:
        if self.routing.axis == "clicks":
            return softmax(logits + log_weight, axis=2)
        return softmax(logits, axis=1) * np.exp(log_weight)


def softmax(logits: FloatArray, axis: int) -> FloatArray:
    """Return the softmax along an axis, in the shape of `logits`."""
    powers: FloatArray = np.exp(logits - logits.max(axis=axis, keepdims=True))
    powers /= powers.sum(axis=axis, keepdims=True)
    return powers


def _log_softmax(logits: FloatArray, axis: int) -> FloatArray:
    shifted = logits - logits.max(axis=axis, keepdims=True)
    logarithm: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return logarithm


def _mixed(capsules: FloatArray, mean: FloatArray, residual: float) -> FloatArray:
    """Return the weighted mean of 1 part capsule, (B, K, D), and `residual` parts of the history's mean, (B, 1, D)."""
    part = np.float32(1 / (1 + residual))
    mixed: FloatArray = part * capsules + (1 - part) * mean
    return mixed


def _squash(capsules: FloatArray) -> FloatArray:
    """Return c · |c|² / (1 + |c|²) / |c| along the last axis (arXiv 1710.09829, equation 1)."""
    square = _square(capsules)
    scaled: FloatArray = capsules * (square / (1 + square) / np.sqrt(square + np.float32(EPSILON)))
    return scaled


def _unit(vectors: FloatArray) -> FloatArray:
    scaled: FloatArray = vectors / np.sqrt(_square(vectors) + np.float32(EPSILON))
    return scaled


def _square(vectors: FloatArray) -> FloatArray:
    square: FloatArray = np.einsum("...d,...d->...", vectors, vectors)[..., None]
    return square
