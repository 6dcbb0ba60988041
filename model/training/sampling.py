"""Training batches, drawn with NumPy: what is drawn depends on the seed and the number of the step, on nothing else.

So no batch repeats, a run goes on exactly where it was interrupted, and processes that train together draw the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from configs.schema import TrainConfig
from model.arrays import FloatVector, IdMatrix, IdVector
from model.data.clicks import Clicks
from model.serving.inputs import windows


class TrainingBatch(NamedTuple):
    """Rows of the item table, int64, 0 = nothing here.

    Attributes:
        histories: (B, L), what users clicked, oldest first, left-aligned; lengths: (B,), how much of it there is.
        targets: (B, T), what they clicked then, the next one first; at least one.
        negatives: (M,), wrong answers for all users.
    """

    histories: IdMatrix
    lengths: IdVector
    targets: IdMatrix
    negatives: IdVector


class Sampler:
    """Draws batches.

    Attributes:
        log_q: (N + 1,) float32, logarithm of each row's share of the negatives, for the correction of the sampled
            softmax (Bengio and Senécal 2008: subtract it from the scores). Row 0 is never drawn.
    """

    def __init__(self, clicks: Clicks, counts: IdVector, config: TrainConfig) -> None:
        """
        Args:
            clicks: of table rows, 1 … N; counts: (N,), clicks of each row.

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
        """TrainingBatch of step 1, 2, …"""
        rng = np.random.default_rng([self._seed, step])
        histories, lengths, targets = self._examples.draw(self._size, rng)
        return TrainingBatch(histories, lengths, targets, self._negatives.draw(targets[:, 0], rng))


class Examples(NamedTuple):
    """The first three parts of a `TrainingBatch`."""

    histories: IdMatrix
    lengths: IdVector
    targets: IdMatrix


class ExampleSampler:
    """Draws a user, then a place among its clicks: those before it are the history, those from it on the targets."""

    def __init__(
        self, clicks: Clicks, length: int, shortest: int, user_power: float, targets: int = 1, window: float = 1.0
    ) -> None:
        """
        Args:
            clicks: of table rows, 1 … N.
            length: L, clicks of history that the model reads.
            shortest: clicks of history that an example has at least; users with fewer clicks than one more are unused.
            user_power: a user is drawn with a probability in proportion to its number of examples to this power:
                0 = all users alike, 1 = all clicks alike.
            targets: T, next clicks that are targets together, fewer where the user has no more …
            window: … and at most this share of the clicks before them, rounded up.

        Raises:
            ValueError: no user has enough clicks.
        """
        examples = clicks.lengths - shortest
        self._users = np.flatnonzero(examples > 0)
        if not len(self._users):
            raise ValueError(f"no user has more than {shortest} clicks; nothing to learn from")
        self._clicks = clicks
        self._length, self._targets, self._window = length, targets, window
        self._starts, self._ends = clicks.offsets[:-1][self._users], clicks.offsets[1:][self._users]
        self._first = self._starts + shortest
        self._examples = examples[self._users]
        self._bounds = np.cumsum(self._examples.astype(np.float64) ** user_power)

    def draw(self, size: int, rng: np.random.Generator) -> Examples:
        """`size` independent examples."""
        user = np.searchsorted(self._bounds, rng.random(size) * self._bounds[-1], side="right")
        user = np.minimum(user, len(self._users) - 1)  # the product above may round up to the last bound
        place = self._first[user] + rng.integers(0, self._examples[user])
        histories, lengths = windows(self._clicks.items, self._starts[user], place, self._length)
        reach = np.ceil((place - self._starts[user]) * self._window).astype(np.int64)
        until = np.minimum(self._ends[user], place + np.maximum(reach, 1))
        places = place[:, None] + np.arange(self._targets)  # (B, T)
        inside = places < until[:, None]
        targets = np.where(inside, self._clicks.items[np.where(inside, places, 0)], 0)
        return Examples(histories, lengths, targets)

    def shares(self, items: int) -> FloatVector:
        """(N + 1,) float32, probability of each row to be the first target."""
        weights = np.diff(self._bounds, prepend=0) / self._bounds[-1] / self._examples  # of an example of each user
        change = np.zeros(len(self._clicks.items) + 1)
        change[self._first] += weights
        np.subtract.at(change, self._ends, weights)
        return np.bincount(self._clicks.items, np.cumsum(change)[:-1], minlength=items + 1).astype(np.float32)


class NegativeSampler:
    """Draws rows that a batch shares as wrong answers, with replacement.

    Attributes:
        log_q: (N + 1,) float32, as in `Sampler`.
    """

    def __init__(self, counts: IdVector, config: TrainConfig, targets: FloatVector) -> None:
        """
        Args:
            counts: (N,) clicks of the items of rows 1 … N; ranks come from them, not from the item ids.
            config: loss.distribution is "uniform"; "log_uniform" over popularity rank, P(r) = log((r + 2)/(r + 1)) /
                log(N + 1); "in_batch" = the users' targets; "mixed" = uniform and in-batch together.
            targets: (N + 1,), probability of each row to be a target.
        """
        self._kind, self._size = config.loss.distribution, config.loss.negatives
        self._items = N = len(counts)
        self.log_q: FloatVector = np.zeros(N + 1, np.float32)
        with np.errstate(divide="ignore"):
            if self._kind == "log_uniform":
                self._by_rank = 1 + np.argsort(-counts, kind="stable")
                self.log_q[self._by_rank] = np.log(np.log1p(1 / (np.arange(N) + 1)) / np.log(N + 1))
            elif self._kind == "uniform":
                self.log_q[1:] = -np.log(N)
            else:
                uniform = self._size if self._kind == "mixed" else 0
                drawn = config.training.batch_size
                # 0 has no logarithm: a row that is never a first target comes as a uniform negative alone.
                share = np.maximum(targets[1:], 1 / (N * 1e3))
                self.log_q[1:] = np.log((uniform / N + drawn * share) / (uniform + drawn))

    def draw(self, targets: IdVector, rng: np.random.Generator) -> IdVector:
        """(M,) int64 rows; targets: (B,) rows, the batch's, which "in_batch" and "mixed" are drawn from."""
        if self._kind == "in_batch":
            return targets
        if self._kind == "log_uniform":
            rank = np.exp(rng.random(self._size) * np.log(self._items + 1)).astype(np.int64) - 1  # inverse distribution
            rows: IdVector = self._by_rank[np.minimum(rank, self._items - 1)]
            return rows
        rows = rng.integers(1, self._items + 1, self._size)
        return np.concatenate([rows, targets]) if self._kind == "mixed" else rows
