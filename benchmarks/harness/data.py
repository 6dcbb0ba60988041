"""Data to measure with: models with random weights, generated clicks, histories. All follow from their seeds."""

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

#: Vectors drawn at once: bounds the memory of large catalogues.
_CHUNK = 65_536
#: Items of one taste of a `Shop`, and tastes of one user.
_TASTE, _TASTES_PER_USER = 400, 3
#: Length of what sets an item apart from its taste's centre, which has length 1. Two items of one taste then have a
#: cosine of 1 / (1 + 0.8²) = 0.61.
_APART = 0.8
#: Mean clicks of a user before those that are sent. Some have 5, few have hundreds (`producers.synthetic`).
_EARLIER = 8


def random_artifact(folder: Path, items: int, dim: int, length: int = 20, seed: int = 0) -> Artifact:
    """A model with random weights and item vectors of length 1: as good as a trained one for everything but taste.

    Random vectors have no clusters: the hardest case for a graph index, so searches of a trained model are not slower.

    Args:
        items: N, ids 1 to N, the most popular first. dim: D. length: L, clicks that the encoder reads.
    """
    rng = np.random.default_rng(seed)
    return _save(folder, _directions(items, dim, rng), length, rng)


def _directions(n: int, dim: int, rng: np.random.Generator) -> FloatMatrix:
    """(n, dim) random vectors of length 1."""
    vectors = np.empty((n, dim), dtype=np.float32)
    for begin in range(0, n, _CHUNK):
        part = vectors[begin : begin + _CHUNK]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def _save(folder: Path, vectors: FloatMatrix, length: int, rng: np.random.Generator) -> Artifact:
    """Interests, and what is computed with the weights, are those of the shipped configuration."""
    items, dim = vectors.shape
    network = load_train().network
    weights = {
        "start": rng.standard_normal((network.interests, length), dtype=np.float32),
        # Near the identity, where training starts; the encoder would leave the identity itself out.
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
        log: all clicks, users one after the other, each in its order; `order` is the one in which they are sent.
        begin, now: (U,) each user's first click, and the first one that is sent; the next user's begin is the end.
    """

    log: ClickLog
    begin: IntVector
    now: IntVector

    def clicks(self) -> ClickLog:
        """What is sent."""
        first = self.now[self.log.user]
        return self.log.take(np.flatnonzero(np.arange(len(self.log)) >= first))

    def earlier(self, length: int) -> Iterator[tuple[int | str, IntVector]]:
        """Each user with its newest `length` clicks before those that are sent, oldest first; others are left out."""
        for user, begin, now in zip(self.log.user_ids, self.begin.tolist(), self.now.tolist(), strict=True):
            if now > begin:
                yield user, self.log.item[max(begin, now - length) : now]

    def histories(self, n: int, length: int, rng: np.random.Generator) -> list[IntVector]:
        """Histories as the worker has them at `n` of the clicks that are sent, drawn at random."""
        sent = np.flatnonzero(np.arange(len(self.log)) >= self.now[self.log.user])
        places = rng.choice(sent, n)
        begins = np.maximum(self.begin[self.log.user[places]], places + 1 - length)
        return [self.log.item[begin : place + 1] for begin, place in zip(begins, places, strict=True)]


class Shop:
    """A model as if trained, and traffic on it.

    Item vectors have length 1 and lie around the centre of their taste, 400 items each; users have three tastes, click
    in sessions, few of them much and most of them little, and popular items more than others.
    """

    def __init__(
        self, folder: Path, *, items: int, dim: int, users: int, clicks: int, length: int = 20, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        tastes = max(4, items // _TASTE)
        self._sent = clicks
        total = clicks + _EARLIER * users
        made = generate(Shape(users, items, total, tastes, _TASTES_PER_USER, drift=0.0, order="time"), seed)
        self._log = _log(users, made.user, made.item, made.order)
        vectors = _directions(items, dim, rng)
        vectors *= np.float32(_APART)
        vectors += _directions(tastes, dim, rng)[made.item_taste[1:]]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.artifact = _save(folder, vectors, length, rng)

    @classmethod
    def of(cls, folder: Path, sizes: Mapping[str, int]) -> Shop:
        """A shop of a benchmark's sizes."""
        return cls(folder, **{name: sizes[name] for name in ("items", "dim", "users", "clicks")})

    def sessions(self) -> Traffic:
        """The newest clicks as time has them: a user's session of some clicks lies close together."""
        log = self._log
        late = np.zeros(len(log), dtype=bool)
        late[np.argsort(log.order, kind="stable")[-self._sent :]] = True
        begin, end = self._users()
        return Traffic(log, begin, end - np.add.reduceat(late, begin))

    def rounds(self) -> Traffic:
        """Everyone's newest clicks, in rounds: nobody clicks again before everybody has clicked."""
        begin, end = self._users()
        rounds = -(-self._sent // len(begin))
        now = np.maximum(begin, end - rounds)
        order = np.arange(len(self._log)) - now[self._log.user]
        log = ClickLog(self._log.user_ids, self._log.user, self._log.item, order.astype(np.float64), True, 0)
        return Traffic(log, begin, now)

    def _users(self) -> tuple[IntVector, IntVector]:
        """(U,) the place of each user's first click, and that behind the last."""
        end = np.cumsum(np.bincount(self._log.user))
        return np.concatenate([[0], end[:-1]]), end


def click_log(clicks: int, users: int, items: int, seed: int = 0) -> ClickLog:
    """Clicks of users with several tastes on the items 1 to `items`, as the replay reads them from a file."""
    tastes = min(20, items)
    shape = Shape(users, items, clicks, tastes=tastes, tastes_per_user=min(_TASTES_PER_USER, tastes), drift=0.0)
    made = generate(shape, seed)
    return _log(users, made.user, made.item, made.order, timed=False)


def _log(users: int, user: Column, item: Column, order: Column, *, timed: bool = True) -> ClickLog:
    return ClickLog(
        list(range(users)),
        user.astype(np.int64),
        item.astype(np.int64),
        order.astype(np.float64),
        timed=timed,
        malformed=0,
    )
