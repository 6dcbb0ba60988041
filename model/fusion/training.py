"""Training of the fusion model: passes through the ratings, and the error on held-out ones after each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from configs.schema import FusionConfig
from model.arrays import FloatArray, FloatVector, IdMatrix, IntVector
from model.fusion.learner import Learner, RatingBatch
from model.fusion.movielens import MAX_RATING, MIN_RATING, MovieLens
from model.fusion.towers import SCALE, film_vectors, user_vectors
from model.fusion.vocabulary import FilmInputs, Vocabulary
from model.training.checkpoint import EpochTally
from model.training.progress import TrainingProgress
from model.training.trainer import DivergenceError

Weights = Mapping[str, FloatArray]


class Model:
    """A trained model beside the data that it was trained on.

    Attributes:
        weights: as in the artifact. vocabulary: words and genres. films: all N, as the film tower reads them.
        film_vectors: (N, D), of length 1.
    """

    def __init__(self, weights: Weights, vocabulary: Vocabulary, films: FilmInputs, attributes: IdMatrix) -> None:
        self.weights, self.vocabulary, self.films = weights, vocabulary, films
        self._attributes = attributes
        self.film_vectors = film_vectors(weights, weights["film"][1:], films)

    def user_vectors(self, users: IntVector) -> FloatArray:
        """Return vectors, (n, D), of users by position."""
        return user_vectors(self.weights, self.weights["user"][users + 1], self._attributes[users])

    def predict(self, users: IntVector, films: IntVector) -> FloatVector:
        """Return predicted ratings, (n,), of users and films by position."""
        different, of = np.unique(users, return_inverse=True)
        cosine = np.einsum("nd,nd->n", self.user_vectors(different)[of], self.film_vectors[films])
        predicted: FloatVector = np.clip(SCALE * cosine, MIN_RATING, MAX_RATING).astype(np.float32)
        return predicted


def fit(
    config: FusionConfig,
    data: MovieLens,
    train: IntVector,
    progress: TrainingProgress,
    measure: Callable[[Model], Mapping[str, float]] = lambda _model: {},
) -> Model:
    """Train on the ratings at the positions `train`; `measure` is called after each epoch, and its figures are shown.

    Raises:
        DivergenceError: the loss is not finite.
    """
    settings = config.training
    vocabulary = Vocabulary.from_films(data.films)
    films, attributes = vocabulary.read(data.films), np.array(data.profiles, np.int64)
    learner = Learner(config, vocabulary, attributes, films)
    rng = np.random.default_rng(settings.seed)
    steps = -(-len(train) // settings.batch_size)
    for epoch in range(1, settings.epochs + 1):
        order, tally = rng.permutation(train), EpochTally()
        for batch in np.array_split(order, steps):
            begin = time.monotonic()
            done = (tally.steps + steps * (epoch - 1)) / (steps * settings.epochs)
            rate = settings.learning_rate * (1 - done if settings.decay == "linear" else 1.0)
            drawn = _drawn(config, data, batch, rng)
            tally.waited += time.monotonic() - begin
            tally.loss += learner.step(drawn, rate)
            tally.steps += 1
            tally.seconds += time.monotonic() - begin
            progress.step(done, epoch, len(batch), tally)
        if not math.isfinite(tally.loss):
            raise DivergenceError(
                f"training diverged in epoch {epoch}: the loss is {tally.loss}; lower training.learning_rate "
                f"(now {settings.learning_rate:g}) and start again"
            )
        model = Model(_with_new(learner.weights(), data, train), vocabulary, films, attributes)
        seconds = max(tally.seconds, 1e-9)
        speed = {"samples_per_second": len(train) / seconds, "data_share": tally.waited / seconds}
        progress.epoch({"epoch": epoch, "loss": tally.loss / tally.steps, **speed, **measure(model)}, best=False)
    return model


def errors(predicted: FloatVector, rating: FloatVector) -> dict[str, float]:
    """Return root mean squared and mean absolute error of (n,) predictions; nothing without any."""
    if not len(rating):
        return {}
    error = predicted.astype(np.float64) - rating
    return {"rmse": float(np.sqrt(np.square(error).mean())), "mae": float(np.abs(error).mean())}


def _with_new(weights: dict[str, FloatArray], data: MovieLens, train: IntVector) -> dict[str, FloatArray]:
    """Give users and films without ratings in training the embedding of new ones; theirs were never trained."""
    for name, positions in (("user", data.user), ("film", data.film)):
        table = weights[name]
        table[1:][np.bincount(positions[train], minlength=len(table) - 1) == 0] = table[0]
    return weights


def _drawn(config: FusionConfig, data: MovieLens, batch: IntVector, rng: np.random.Generator) -> RatingBatch:
    """Return these ratings with some of the ids dropped."""
    known_user, known_film = (
        rng.random(len(batch)) >= share for share in (config.training.drop_users, config.training.drop_films)
    )
    return RatingBatch(data.user[batch], data.film[batch], data.rating[batch], known_user, known_film)
