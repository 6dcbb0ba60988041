"""Data for benchmarks, reproducible from seeds: models with random weights, generated clicks, histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.loader import load_train
from model.arrays import FloatMatrix, IntVector
from model.artifact import Artifact, save_artifact
from model.serving.encoder import Routing
from producers.click_log import ClickLog
from producers.synthetic import Column, Shape, generate

#: Vectors drawn at a time; limits the memory for large catalogues.
_CHUNK = 65_536
#: Items of one taste of a `Shop`, and tastes of one user.
_TASTE, _TASTES_PER_USER = 400, 3
#: Length of an item's deviation from the centre of its taste, which has length 1. Two items of a taste then have a
#: cosine of 1 / (1 + 0.8²) = 0.61.
_DEVIATION = 0.8
#: Mean number of a user's clicks before those that are sent. Some have 5, few have hundreds (`producers.synthetic`).
_EARLIER = 8


def random_artifact(folder: Path, items: int, dim: int, length: int = 20, seed: int = 0) -> Artifact:
    """Save a model with random weights and item vectors of length 1: as good as a trained one, except for quality.

    Random vectors have no clusters, the hardest case for a graph index: searches of a trained model are not slower.

    Args:
        folder: for the artifact.
        items: N; ids are 1 to N, the most popular first.
        dim: D, length of a vector.
        length: L, clicks that the encoder reads.
    """
    rng = np.random.default_rng(seed)
    return _save(folder, _directions(items, dim, rng), length, rng)


def _directions(n: int, dim: int, rng: np.random.Generator) -> FloatMatrix:
    """Return (n, dim) random vectors of length 1."""
    vectors = np.empty((n, dim), dtype=np.float32)
    for begin in range(0, n, _CHUNK):
        part = vectors[begin : begin + _CHUNK]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def _save(folder: Path, vectors: FloatMatrix, length: int, rng: np.random.Generator) -> Artifact:
    """Save vectors as an artifact with the interests and the encoder of the shipped configuration."""
    items, dim = vectors.shape
    network = load_train().network
    weights = {
        "start": rng.standard_normal((network.interests, length), dtype=np.float32),
        # Near the identity, where training starts; the encoder would skip the product with an exact identity.
        "bilinear": np.eye(dim, dtype=np.float32)
        + np.float32(1e-3) * rng.standard_normal((dim, dim), dtype=np.float32),
        "recency": np.zeros(length, dtype=np.float32),
        "output": np.eye(dim, dtype=np.float32),
        "bias": np.zeros(dim, dtype=np.float32),
    }
    return save_artifact(
        folder,
        weights=weights,
        interests=network.interests,
        history_length=length,
        encoder=Routing.from_network(network).to_dict(),
        item_ids=np.arange(1, items + 1, dtype=np.int64),
        item_vectors=vectors,
        item_counts=np.arange(items, 0, -1, dtype=np.int64),
        users=1,
        clicks=items,
        config={},
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Clicks to send, of users who have clicked before.

    Attributes:
        log: all clicks, user by user, each user's in order; `log.order` is the order in which they are sent.
        first_click, first_sent: (U,) row of each user's first click, and of the first one that is sent.
    """

    log: ClickLog
    first_click: IntVector
    first_sent: IntVector

    def clicks(self) -> ClickLog:
        """Return the clicks that are sent."""
        return self.log.take(self._sent_rows())

    def earlier(self, length: int) -> Iterator[tuple[int | str, IntVector]]:
        """Yield each user that has earlier clicks, with the newest `length` of them, oldest first."""
        firsts = zip(self.first_click.tolist(), self.first_sent.tolist(), strict=True)
        for user, (begin, end) in zip(self.log.user_ids, firsts, strict=True):
            if end > begin:
                yield user, self.log.item[max(begin, end - length) : end]

    def histories(self, n: int, length: int, rng: np.random.Generator) -> list[IntVector]:
        """Return the histories that the worker has at `n` of the clicks that are sent, drawn at random."""
        rows = rng.choice(self._sent_rows(), n)
        begins = np.maximum(self.first_click[self.log.user[rows]], rows + 1 - length)
        return [self.log.item[begin : row + 1] for begin, row in zip(begins, rows, strict=True)]

    def _sent_rows(self) -> IntVector:
        return np.flatnonzero(np.arange(len(self.log)) >= self.first_sent[self.log.user])


class Shop:
    """A model like a trained one, and traffic on it.

    Item vectors have length 1 and lie around the centres of tastes of 400 items each. Users have three tastes, click in
    sessions, and prefer popular items; few of them click often, most of them rarely.

    Args:
        folder: for the artifact.
        items, dim: N, D of the model.
        users, clicks: number of users, and of clicks to send.
        length: L, clicks that the encoder reads.
    """

    def __init__(
        self, folder: Path, *, items: int, dim: int, users: int, clicks: int, length: int = 20, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        tastes = max(4, items // _TASTE)
        self._sent = clicks
        total = clicks + _EARLIER * users
        generated = generate(Shape(users, items, total, tastes, _TASTES_PER_USER, drift=0.0, order="time"), seed)
        self._log = _log(users, generated.user, generated.item, generated.order)
        vectors = _directions(items, dim, rng)
        vectors *= np.float32(_DEVIATION)
        vectors += _directions(tastes, dim, rng)[generated.item_taste[1:]]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.artifact = _save(folder, vectors, length, rng)

    @classmethod
    def from_sizes(cls, folder: Path, sizes: Mapping[str, int]) -> Shop:
        """Return a shop with a benchmark's sizes."""
        return cls(folder, **{name: sizes[name] for name in ("items", "dim", "users", "clicks")})

    def sessions(self) -> Traffic:
        """Return the newest clicks in the order of time, so that the clicks of a user's session are close together."""
        log = self._log
        sent = np.zeros(len(log), dtype=bool)
        sent[np.argsort(log.order, kind="stable")[-self._sent :]] = True
        begin, end = self._users()
        return Traffic(log, begin, end - np.add.reduceat(sent, begin))

    def rounds(self) -> Traffic:
        """Return all users' newest clicks in rounds: no user clicks again before all have clicked."""
        begin, end = self._users()
        rounds = -(-self._sent // len(begin))
        first_sent = np.maximum(begin, end - rounds)
        order = np.arange(len(self._log)) - first_sent[self._log.user]
        log = ClickLog(self._log.user_ids, self._log.user, self._log.item, order.astype(np.float64), True)
        return Traffic(log, begin, first_sent)

    def _users(self) -> tuple[IntVector, IntVector]:
        """Return (U,) rows of the users' first clicks, and (U,) rows after their last ones."""
        end = np.cumsum(np.bincount(self._log.user))
        return np.concatenate([[0], end[:-1]]), end


def click_log(clicks: int, users: int, items: int, seed: int = 0) -> ClickLog:
    """Return clicks of users with several tastes on the items 1 to `items`, as the replay reads them from a file."""
    tastes = min(20, items)
    shape = Shape(users, items, clicks, tastes=tastes, tastes_per_user=min(_TASTES_PER_USER, tastes), drift=0.0)
    generated = generate(shape, seed)
    return _log(users, generated.user, generated.item, generated.order, timed=False)


def _log(users: int, user: Column, item: Column, order: Column, *, timed: bool = True) -> ClickLog:
    return ClickLog(
        list(range(users)),
        user.astype(np.int64),
        item.astype(np.int64),
        order.astype(np.float64),
        timed=timed,
    )
