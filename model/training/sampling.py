"""Draw training batches with NumPy. A batch depends only on the seed and the number of its step.

Therefore no batch repeats, a run resumes exactly where it was interrupted, and processes that train together draw the
same batches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from configs.schema import TrainConfig
from configs.text import count
from model.arrays import FloatVector, IdMatrix, IdVector, IntVector
from model.data.clicks import Clicks
from model.serving.inputs import windows


class TrainingBatch(NamedTuple):
    """A batch of B users, as rows of the item table, int64, 0 = padding.

    Attributes:
        histories: (B, L), clicked items, oldest first, left-aligned; lengths: (B,), number of them.
        targets: (B, T), items clicked next, the next one first; at least one.
        negatives: (M,), wrong answers for all users.
    """

    histories: IdMatrix
    lengths: IntVector
    targets: IdMatrix
    negatives: IdVector


class Sampler:
    """Draws batches.

    Attributes:
        log_q: (N + 1,) float32, logarithm of each row's share of the negatives, which the sampled softmax subtracts
            from the scores (Bengio and Senécal 2008). Row 0 is never drawn.
    """

    def __init__(self, clicks: Clicks, counts: IntVector, config: TrainConfig) -> None:
        """
        Args:
            clicks: clicks with table rows, 1 … N; counts: (N,), clicks of each row.

        Raises:
            ValueError: no user has enough clicks.
        """
        self._seed, self._size = config.training.seed, config.training.batch_size
        self._examples = ExampleSampler(
            clicks,
            config.network.history_length,
            config.training.shortest_history,
            config.training.user_power,
            config.loss.targets,
            config.loss.target_window,
        )
        self._negatives = NegativeSampler(counts, config, self._examples.shares(len(counts)))
        self.log_q = self._negatives.log_q

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of a step, 1, 2, …"""
        rng = np.random.default_rng([self._seed, step])
        histories, lengths, targets = self._examples.draw(self._size, rng)
        return TrainingBatch(histories, lengths, targets, self._negatives.draw(targets[:, 0], rng))


class Examples(NamedTuple):
    """Histories, lengths and targets of a `TrainingBatch`."""

    histories: IdMatrix
    lengths: IntVector
    targets: IdMatrix


class ExampleSampler:
    """Draws a user, then a position among its clicks: clicks before it are the history, clicks from it the targets."""

    def __init__(
        self, clicks: Clicks, length: int, shortest: int, user_power: float, targets: int = 1, window: float = 1.0
    ) -> None:
        """
        Args:
            clicks: clicks with table rows, 1 … N.
            length: L, clicks of history that the model reads.
            shortest: smallest number of clicks in a history; users need one click more than that.
            user_power: the probability of a user is proportional to its number of examples to this power: 0 = all
                users equally, 1 = all clicks equally.
            targets: T, largest number of next clicks that are targets together.
            window: limits the number of targets further, to this share of the number of clicks before them, rounded up.

        Raises:
            ValueError: no user has enough clicks.
        """
        examples = clicks.lengths - shortest
        self._users = np.flatnonzero(examples > 0)
        if not len(self._users):
            raise ValueError(f"no user has more than {count(shortest, 'click')}, so there are no training examples")
        self._clicks = clicks
        self._length, self._targets, self._window = length, targets, window
        self._starts, self._ends = clicks.offsets[:-1][self._users], clicks.offsets[1:][self._users]
        self._first = self._starts + shortest
        self._examples = examples[self._users]
        self._bounds = np.cumsum(self._examples.astype(np.float64) ** user_power)

    def draw(self, size: int, rng: np.random.Generator) -> Examples:
        """Draw `size` independent examples."""
        user = np.searchsorted(self._bounds, rng.random(size) * self._bounds[-1], side="right")
        user = np.minimum(user, len(self._users) - 1)  # the product above may round up to the last bound
        first = self._first[user] + rng.integers(0, self._examples[user])
        histories, lengths = windows(self._clicks.items, self._starts[user], first, self._length)
        reach = np.ceil((first - self._starts[user]) * self._window).astype(np.int64)
        end = np.minimum(self._ends[user], first + np.maximum(reach, 1))
        positions = first[:, None] + np.arange(self._targets)  # (B, T)
        inside = positions < end[:, None]
        targets = np.where(inside, self._clicks.items[np.where(inside, positions, 0)], 0)
        return Examples(histories, lengths, targets)

    def shares(self, items: int) -> FloatVector:
        """Return the probability that each row is the first target, (N + 1,) float32."""
        # Probability of one example of each user.
        weights = np.diff(self._bounds, prepend=0) / self._bounds[-1] / self._examples
        change = np.zeros(len(self._clicks.items) + 1)
        change[self._first] += weights
        np.subtract.at(change, self._ends, weights)
        return np.bincount(self._clicks.items, np.cumsum(change)[:-1], minlength=items + 1).astype(np.float32)


class NegativeSampler:
    """Draws rows with replacement, as wrong answers for all users of a batch.

    Attributes:
        log_q: (N + 1,) float32, as in `Sampler`.
    """

    def __init__(self, counts: IntVector, config: TrainConfig, targets: FloatVector) -> None:
        """
        Args:
            counts: (N,) clicks of the items of rows 1 … N; the popularity rank is by them, not by the item ids.
            config: loss.distribution is "uniform"; "log_uniform" over popularity rank, P(r) = log((r + 2)/(r + 1)) /
                log(N + 1); "in_batch" = the users' targets; "mixed" = uniform and in-batch together.
            targets: (N + 1,), probability of each row to be a first target.
        """
        self._distribution, self._size = config.loss.distribution, config.loss.negatives
        self._items = N = len(counts)
        self.log_q: FloatVector = np.zeros(N + 1, np.float32)
        with np.errstate(divide="ignore"):
            if self._distribution == "log_uniform":
                self._by_rank = 1 + np.argsort(-counts, kind="stable")
                self.log_q[self._by_rank] = np.log(np.log1p(1 / (np.arange(N) + 1)) / np.log(N + 1))
            elif self._distribution == "uniform":
                self.log_q[1:] = -np.log(N)
            else:
                uniform = self._size if self._distribution == "mixed" else 0
                drawn = config.training.batch_size
                # Rows that are never a first target, only a uniform negative, get a tiny share: 0 has no logarithm.
                share = np.maximum(targets[1:], 1 / (N * 1e3))
                self.log_q[1:] = np.log((uniform / N + drawn * share) / (uniform + drawn))

    def draw(self, targets: IdVector, rng: np.random.Generator) -> IdVector:
        """Draw rows, (M,) int64; "in_batch" and "mixed" contain the batch's first targets, (B,) rows."""
        if self._distribution == "in_batch":
            return targets
        if self._distribution == "log_uniform":
            # By the inverse of the distribution function.
            rank = np.exp(rng.random(self._size) * np.log(self._items + 1)).astype(np.int64) - 1
            rows: IdVector = self._by_rank[np.minimum(rank, self._items - 1)]
            return rows
        rows = rng.integers(1, self._items + 1, self._size)
        return np.concatenate([rows, targets]) if self._distribution == "mixed" else rows
