"""MIND's serving half in NumPy: embeddings of a history to interest vectors, without Paddle.

`model/net.py` holds the same computation for training; a test keeps the two equal. Serving runs here because NumPy
takes a fifth of the time of Paddle's fastest way on a CPU, and needs no import of several hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.artifact import Artifact, ArtifactError

FloatArray = npt.NDArray[np.float32]
IdVector = npt.NDArray[np.int64]

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
        output: "relu" = ReLU(squash(Σ w S e) W + b), as published; "unit" = for l2-normalised item vectors: the
            weighted mean of S e instead of the squashed sum, at length 1 before and after W, and no bias.
        residual: weight of the history's mean, which is added to each capsule before the output; 0 = none.
    """

    iterations: int
    temperature: float
    output: Literal["relu", "unit"]
    residual: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Routing:
        """Raises TypeError unless the keys are exactly the fields."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Encoder:
    """Dynamic routing of MIND (arXiv 1904.08030, section 4.3), with routing logits that are fixed, not redrawn.

    Weights, all float32: `bilinear` (D, D) is S, `start` (K, L) holds the first routing logits and `recency` (L,) the
    logarithm of a click's weight, both by age (column 0 = the newest click), `output` (D, D) and `bias` (D,).

    Attributes:
        dim: D. interests: K. history_length: L.
    """

    def __init__(self, weights: Mapping[str, FloatArray], routing: Routing) -> None:
        """Raises ArtifactError when weights are missing or their shapes don't fit together."""
        missing = {"bilinear", "start", "recency", "output", "bias"} - set(weights)
        if missing:
            raise ArtifactError(f"weights {sorted(missing)} are missing; train the model again with this version")
        self._bilinear, self._start, self._recency, self._output, self._bias = (
            np.asarray(weights[name], dtype=np.float32) for name in ("bilinear", "start", "recency", "output", "bias")
        )
        self.dim = len(self._bias)
        self.interests, self.history_length = self._start.shape
        expected = [(self.dim, self.dim), (self.interests, self.history_length), (self.history_length,)]
        if [self._bilinear.shape, self._start.shape, self._recency.shape] != expected:
            raise ArtifactError("the shapes of the weights don't fit together; train the model again")
        self._routing = routing

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
        B, L, D = embeddings.shape
        age = lengths[:, None] - 1 - np.arange(L)  # (B, L), 0 = newest, negative = padding
        log_weight = np.where(age >= 0, self._recency[age], NEVER)  # (B, L)
        logits = self._start[:, age].transpose(1, 0, 2)  # (B, K, L); a negative age reads anything, its weight is 0
        mapped = (embeddings.reshape(-1, D) @ self._bilinear).reshape(B, L, D)
        weight = np.exp(log_weight)[:, None, :]  # (B, 1, L)
        for _ in range(self._routing.iterations - 1):
            capsules = _squash((_softmax(logits, axis=1) * weight) @ mapped)  # (B, K, D)
            logits = logits + capsules @ mapped.transpose(0, 2, 1) / np.float32(self._routing.temperature)
        if self._routing.output == "unit":
            # The mean of each interest's clicks: with hardly a click it still points somewhere, in a stable way.
            share = _softmax(_log_softmax(logits, axis=1) + log_weight[:, None, :], axis=2)  # (B, K, L)
            capsules = _unit(share @ mapped)  # (B, K, D)
        else:
            capsules = _squash((_softmax(logits, axis=1) * weight) @ mapped)  # (B, K, D)
        if self._routing.residual:
            capsules = capsules + np.float32(self._routing.residual) * self._mean(log_weight, embeddings)
        interests: FloatArray = np.where((lengths > 0)[:, None, None], self._project(capsules), np.float32(0))
        return interests

    def _mean(self, log_weight: FloatArray, embeddings: FloatArray) -> FloatArray:
        mean: FloatArray = _softmax(log_weight, axis=1)[:, None, :] @ embeddings  # (B, 1, D)
        return mean

    def _project(self, capsules: FloatArray) -> FloatArray:
        projected: FloatArray = (capsules.reshape(-1, self.dim) @ self._output).reshape(capsules.shape)
        if self._routing.output == "unit":
            return _unit(projected)
        positive: FloatArray = np.maximum(projected + self._bias, np.float32(0))
        return positive


def _softmax(logits: FloatArray, axis: int) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(axis=axis, keepdims=True))
    powers /= powers.sum(axis=axis, keepdims=True)
    return powers


def _log_softmax(logits: FloatArray, axis: int) -> FloatArray:
    shifted = logits - logits.max(axis=axis, keepdims=True)
    logarithm: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return logarithm


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
