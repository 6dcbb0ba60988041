"""The training loop of the profile tower: item vectors are fixed, and the loss is that of the MIND model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from configs.schema import Loss, ProfileConfig
from model.arrays import DoubleArray, FloatArray, FloatVector, IdMatrix, IdVector, IntVector
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.profile.data import ProfiledUsers
from model.serving.attributes import AttributeTable, EncodedProfiles
from model.serving.profile import EPSILON
from model.training.backend import F, Tensor, paddle
from model.training.checkpoint import EpochTally
from model.training.loss import LossTerms, sampled_softmax
from model.training.optimizer import Adam
from model.training.progress import TrainingProgress
from model.training.trainer import DivergenceError

#: Figure that decides which pass is kept.
DECISIVE = "recall@50"
Weights = dict[str, FloatArray]


class Examples(NamedTuple):
    """U users to train on.

    Attributes:
        profiles: as the tower reads them. targets: (U, T) int64, rows of items counted from 1, 0 = none.
    """

    profiles: EncodedProfiles
    targets: IdMatrix

    @classmethod
    def from_users(
        cls, users: ProfiledUsers, table: AttributeTable, artifact: Artifact, targets: int | None
    ) -> Examples:
        """Return users with their first `targets` clicks on items that the model knows; None = all of them."""
        rows = first_rows(users.clicks, artifact, targets)
        padded = np.zeros((len(rows), max(map(len, rows), default=1)), np.int64)
        for user, own in enumerate(rows):
            padded[user, : len(own)] = own + 1
        return cls(table.encode(users.profiles), padded)


def first_rows(clicks: Clicks, artifact: Artifact, number: int | None) -> list[IdVector]:
    """Return the rows of each user's first items that the model knows, oldest first."""
    rows = artifact.rows(clicks.items)
    parts = (rows[begin:end] for begin, end in zip(clicks.offsets[:-1], clicks.offsets[1:], strict=True))
    return [part[part >= 0][:number] for part in parts]


class Learner:
    """The tower in Paddle and its optimizer. Weights are named as in `model.serving.profile`."""

    def __init__(self, config: ProfileConfig, artifact: Artifact, table: AttributeTable, examples: Examples) -> None:
        """
        Args:
            examples: all of them, for the start: the vector of an average user.
        """
        self.unit = bool(artifact.encoder["normalise"])
        self._config, self._table = config, table
        self._rng = np.random.default_rng(config.training.seed)
        self._users = len(examples.targets)
        temperature = config.loss.temperature or artifact.manifest["config"]["loss"]["temperature"]
        self._loss = Loss.model_construct(readout="mean", fusion=0.0, hardness=0.0, temperature=temperature)
        self._vectors = np.concatenate([np.zeros((1, artifact.dim), np.float32), artifact.item_vectors])  # (N + 1, D)
        self._shares = _target_shares(examples.targets, len(artifact.item_ids))
        self._weights = {
            name: paddle.to_tensor(value, stop_gradient=False) for name, value in self._initial(artifact.dim).items()
        }
        self._adam = Adam(self._weights)

    def _initial(self, dim: int) -> Weights:
        average = (self._shares @ self._vectors).astype(np.float32)
        hidden = self._config.network.hidden
        if not hidden:
            return {"table": np.zeros((self._table.size, dim), np.float32), "bias": average}
        drawn = {"table": (self._table.size, hidden), "output": (hidden, dim)}
        scales = {"table": 0.1, "output": 0.1 / math.sqrt(hidden)}
        normal = {name: self._rng.normal(0, scales[name], shape).astype(np.float32) for name, shape in drawn.items()}
        return {**normal, "bias": np.full(hidden, 0.1, np.float32), "output_bias": average}

    def step(self, batch: Examples, rate: float) -> float:
        """Make a step of Adam with learning rate `rate`; return the loss before it, without the penalty."""
        negatives, log_q = self._negatives(batch.targets)
        terms = LossTerms.from_rows(batch.targets, negatives, log_q, users=len(batch.targets))
        users = self._forward(_dropped(batch.profiles, self._table, self._config.training.drop_attributes, self._rng))
        # The loss computes the gradients of items, too, and Paddle insists on using them; they are ignored.
        targets, wrong = (
            paddle.to_tensor(self._vectors[rows], stop_gradient=False) for rows in (batch.targets, negatives)
        )
        loss = sampled_softmax(users.unsqueeze(1), targets, wrong, terms, self._loss)
        table = self._weights["table"]
        (loss + self._config.loss.penalty / self._users * (table * table).sum()).backward()
        self._adam.update(rate)
        return float(loss)

    def _forward(self, profiles: EncodedProfiles) -> Tensor:
        weights = self._weights
        own = F.embedding(paddle.to_tensor(profiles.rows), weights["table"])  # (B, S, H)
        total = (own * paddle.to_tensor(profiles.weights).unsqueeze(2)).sum(axis=1)
        if "output" in weights:
            hidden = F.relu(total + weights["bias"])
            total = paddle.matmul(hidden, weights["output"]) + weights["output_bias"]
        else:
            total = total + self._bias()
        return _unit(total) if self.unit else total

    def _bias(self) -> Tensor:
        # The penalty limits embeddings relative to the bias, which could otherwise shrink with them.
        return _unit(self._weights["bias"]) if self.unit else self._weights["bias"]

    def _negatives(self, targets: IdMatrix) -> tuple[IdVector, FloatVector]:
        """Return rows, (M,), and the logarithm of each row's share of the negatives, (N + 1,)."""
        N, M = len(self._vectors) - 1, self._config.loss.negatives
        if N <= M:
            return np.arange(1, N + 1), np.zeros(N + 1, np.float32)
        column = self._rng.integers(0, (targets > 0).sum(axis=1))
        own = targets[np.arange(len(targets)), column]
        # As in `model.training.sampling`: rows that are never a target get a tiny share, because 0 has no logarithm.
        share = (M / N + len(own) * np.maximum(self._shares, 1 / (N * 1e3))) / (M + len(own))
        return np.concatenate([self._rng.integers(1, N + 1, M), own]), np.log(share).astype(np.float32)

    def weights(self) -> Weights:
        """Return the current weights by name, as in the artifact, copied to NumPy."""
        with paddle.no_grad():
            values = {**self._weights, **({} if "output" in self._weights else {"bias": self._bias()})}
            return {name: np.array(value.numpy()) for name, value in values.items()}


def fit(
    config: ProfileConfig,
    artifact: Artifact,
    table: AttributeTable,
    examples: Examples,
    measure: Callable[[Weights], Mapping[str, float]],
    progress: TrainingProgress,
) -> tuple[Weights, Mapping[str, float]]:
    """Train, and return the weights of the best pass, with its figures.

    Args:
        examples: at least one, each with at least one target.
        measure: called after each pass; `DECISIVE` is the figure by which the best one is chosen.

    Raises:
        DivergenceError: the loss is not finite.
    """
    settings = config.training
    learner = Learner(config, artifact, table, examples)
    rng = np.random.default_rng([settings.seed, 1])
    steps = -(-len(examples.targets) // settings.batch_size)
    best, figures, best_epoch = learner.weights(), measure(learner.weights()), 0
    for epoch in range(1, settings.epochs + 1):
        tally = EpochTally()
        for users in np.array_split(rng.permutation(len(examples.targets)), steps):
            begin = time.monotonic()
            done = (tally.steps + steps * (epoch - 1)) / (steps * settings.epochs)
            tally.loss += learner.step(_take(examples, users), settings.learning_rate * (1 - done))
            tally.steps += 1
            tally.seconds += time.monotonic() - begin
            progress.step(done, epoch, len(users), tally)
        if not math.isfinite(tally.loss):
            raise DivergenceError(
                f"training diverged in epoch {epoch}: the loss is {tally.loss}; lower training.learning_rate "
                f"(now {settings.learning_rate:g}) and start again"
            )
        measured = measure(weights := learner.weights())
        if better := measured[DECISIVE] > figures[DECISIVE]:
            best, figures, best_epoch = weights, measured, epoch
        speed = {"samples_per_second": len(examples.targets) / max(tally.seconds, 1e-9), "data_share": 0.0}
        progress.epoch({"epoch": epoch, "loss": tally.loss / tally.steps, **speed, **measured}, best=better)
        if epoch - best_epoch >= settings.patience:
            break
    return best, figures


def _take(examples: Examples, users: IntVector) -> Examples:
    profiles, targets = examples.profiles, examples.targets[users]
    width = max(1, int((targets > 0).sum(axis=1).max()))
    taken = EncodedProfiles(profiles.rows[users], profiles.weights[users], profiles.attribute)
    return Examples(taken, np.ascontiguousarray(targets[:, :width]))


def _dropped(
    profiles: EncodedProfiles, table: AttributeTable, probability: float, rng: np.random.Generator
) -> EncodedProfiles:
    """Return profiles in which attributes are unknown with this probability."""
    if not probability:
        return profiles
    attribute = profiles.attribute
    drop = (rng.random((len(profiles.rows), len(table.attributes))) < probability)[:, attribute]  # (B, S)
    first = np.diff(attribute, prepend=-1) > 0
    rows = np.where(drop, table.first[attribute], profiles.rows)
    weights = np.where(drop, first.astype(np.float32), profiles.weights)
    return EncodedProfiles(rows, weights, attribute)


def _target_shares(targets: IdMatrix, items: int) -> DoubleArray:
    """Return the share of each row, 0 to N, in the targets of an average user, (N + 1,) float64."""
    given = targets > 0
    weights = given / (given.sum(axis=1, keepdims=True) * len(targets))
    return np.asarray(np.bincount(targets[given], weights[given], minlength=items + 1), np.float64)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / paddle.sqrt((vectors * vectors).sum(axis=-1, keepdim=True) + EPSILON)
