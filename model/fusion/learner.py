"""One optimizer step of the fusion model on one batch of ratings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from configs.schema import FusionConfig
from model.arrays import FloatArray, FloatVector, IdMatrix, IntVector, Mask
from model.fusion.net import attribute_length, film_vectors, initial_ids, initial_weights, user_vectors
from model.fusion.towers import SCALE
from model.fusion.vocabulary import FilmInputs, Vocabulary
from model.training.backend import F, Tensor, paddle
from model.training.optimizer import Adam, ItemTable


class RatingBatch(NamedTuple):
    """B ratings.

    Attributes:
        user, film: (B,) positions, from 0. rating: (B,) float32.
        known_user, known_film: (B,) bool; False = the id is dropped, as if user or film were new.
    """

    user: IntVector
    film: IntVector
    rating: FloatVector
    known_user: Mask
    known_film: Mask


class Learner:
    """Both towers and their optimizers."""

    def __init__(self, config: FusionConfig, vocabulary: Vocabulary, attributes: IdMatrix, films: FilmInputs) -> None:
        """
        Args:
            attributes: (U, 3), of all users, positions as in `Profile`; films: all N films.
        """
        rng = np.random.default_rng(config.training.seed)
        self._loss = config.loss
        self._attributes, self._films = attributes, films
        start = initial_weights(config.network, vocabulary, rng)
        self._weights = {name: paddle.to_tensor(value, stop_gradient=False) for name, value in start.items()}
        self._adam = Adam(self._weights)
        self._users = _Ids(initial_ids(len(attributes), config.network, rng))
        self._film_ids = _Ids(initial_ids(len(films.words), config.network, rng))

    def step(self, batch: RatingBatch, rate: float) -> float:
        """Make a step of Adam with learning rate `rate`; return the mean squared error before it."""
        users, user_ids, user_length = self._users.look_up(batch.user, batch.known_user)
        films, film_ids, film_length = self._film_ids.look_up(batch.film, batch.known_film)
        u = user_vectors(self._weights, user_ids, self._attributes[users.different])
        v = film_vectors(self._weights, film_ids, self._films.take(films.different))
        cosine = (users.for_each(u) * films.for_each(v)).sum(axis=1)
        error = SCALE * cosine - paddle.to_tensor(batch.rating)
        squared = (error * error).mean()
        penalty = self._loss.id_penalty * (user_length + film_length)
        penalty = penalty + self._loss.attribute_penalty * attribute_length(self._weights)
        (squared + penalty).backward()
        self._users.table.update(rate)
        self._film_ids.table.update(rate)
        self._adam.update(rate)
        return float(squared)

    def weights(self) -> dict[str, FloatArray]:
        """Return the current weights by name, as in the artifact, copied to NumPy."""
        tables = {"user": self._users.table.values(), "film": self._film_ids.table.values()}
        return {name: np.array(value.numpy()) for name, value in (self._weights | tables).items()}


class _Used(NamedTuple):
    """The different users, or films, of a batch: one with its id and one without it are two.

    Attributes:
        different: (n,) positions, from 0. of: (B,) which of them each rating has.
    """

    different: IntVector
    of: IntVector

    def for_each(self, vectors: Tensor) -> Tensor:
        """Return the vector of each rating, (n, D) → (B, D)."""
        return F.embedding(paddle.to_tensor(self.of), vectors)


class _Ids:
    """The embeddings of users' or films' ids: row 0 if the id is dropped, else row position + 1."""

    def __init__(self, values: FloatArray) -> None:
        self.table = ItemTable(values, padding=False)
        self._number = len(values) - 1

    def look_up(self, position: IntVector, known: Mask) -> tuple[_Used, Tensor, Tensor]:
        """Return the different ones, their embeddings, (n, I), and the mean squared length over the ratings, ()."""
        keys, of = np.unique(position + self._number * known, return_inverse=True)
        used = _Used(keys % self._number, of)
        rows, row = np.unique(np.maximum(keys - self._number + 1, 0), return_inverse=True)
        leaf = self.table.look_up(rows)
        share = np.bincount(row[of], minlength=len(rows)).astype(np.float32) / len(position)
        length = ((leaf * leaf).sum(axis=1) * paddle.to_tensor(share)).sum()
        return used, F.embedding(paddle.to_tensor(row), leaf), length
