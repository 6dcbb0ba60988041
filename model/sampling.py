"""Training examples and negatives, drawn with NumPy in whole batches from a seeded generator."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.data import Clicks
from model.inputs import IdMatrix, IdVector, windows

FloatVector = npt.NDArray[np.float32]
Distribution = Literal["uniform", "log_uniform"]


class Examples(NamedTuple):
    """Histories (B, L) int64 padded with 0, their lengths (B,), and the item clicked next, (B,) int64."""

    histories: IdMatrix
    lengths: IdVector
    targets: IdVector


class ExampleSampler:
    """Draws a user, then one of its clicks as the target; the clicks before it are the history."""

    def __init__(self, clicks: Clicks, length: int, shortest: int, user_power: float) -> None:
        """
        Args:
            clicks: of table rows, 1 … N.
            length: L, clicks of history that the model reads.
            shortest: clicks of history that an example has at least; users with fewer clicks than one more are unused.
            user_power: a user is drawn with a probability in proportion to its number of examples to this power:
                0 = all users alike, 1 = all clicks alike.

        Raises:
            ValueError: no user has enough clicks.
        """
        examples = clicks.lengths - shortest
        self._users = np.flatnonzero(examples > 0)
        if not len(self._users):
            raise ValueError(f"no user has more than {shortest} clicks; nothing to learn from")
        self._clicks = clicks
        self._length = length
        self._starts = clicks.offsets[self._users]
        self._first = self._starts + shortest
        self._examples = examples[self._users]
        self._bounds = np.cumsum(self._examples.astype(np.float64) ** user_power)

    def draw(self, size: int, rng: np.random.Generator) -> Examples:
        """`size` independent examples."""
        user = np.searchsorted(self._bounds, rng.random(size) * self._bounds[-1], side="right")
        user = np.minimum(user, len(self._users) - 1)  # the product above may round up to the last bound
        target = self._first[user] + rng.integers(0, self._examples[user])
        histories, lengths = windows(self._clicks.items, self._starts[user], target, self._length)
        return Examples(histories, lengths, self._clicks.items[target])


class NegativeSampler:
    """Draws rows that a batch shares as wrong answers, with replacement.

    Attributes:
        log_q: (N + 1,) float32, logarithm of each row's probability, for the correction of the sampled softmax
            (Bengio and Senécal 2008: subtract it from the scores). Row 0 is never drawn.
    """

    def __init__(self, counts: IdVector, distribution: Distribution) -> None:
        """
        Args:
            counts: (N,) clicks of the items of rows 1 … N; ranks come from them, not from the item ids.
            distribution: "uniform", or "log_uniform" over popularity rank: P(r) = log((r + 2)/(r + 1)) / log(N + 1).
        """
        items = len(counts)
        self._by_rank = None if distribution == "uniform" else 1 + np.argsort(-counts, kind="stable")
        self._items = items
        self.log_q: FloatVector = np.zeros(items + 1, np.float32)
        if self._by_rank is None:
            self.log_q[1:] = -np.log(items)
        else:
            rank = np.arange(items)
            self.log_q[self._by_rank] = np.log(np.log1p(1 / (rank + 1)) / np.log(items + 1))

    def draw(self, size: int, rng: np.random.Generator) -> IdVector:
        """(size,) int64 rows."""
        if self._by_rank is None:
            return rng.integers(1, self._items + 1, size)
        rank = np.exp(rng.random(size) * np.log(self._items + 1)).astype(np.int64) - 1  # inverse of its distribution
        rows: IdVector = self._by_rank[np.minimum(rank, self._items - 1)]
        return rows
