"""Small generated ratings, a small network, and a model that is trained once."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.loader import load_fusion
from configs.schema import FusionConfig
from model.arrays import FloatArray, IntVector
from model.fusion.artifact import FusionArtifact, save_artifact
from model.fusion.movielens import MovieLens
from model.fusion.training import Model, fit
from model.training.progress import TrainingProgress
from producers.synthetic_ratings import RatingsShape, Structure, generate_ratings

SMALL = (
    "network.dim=16",
    "network.id_dim=12",
    "network.attribute_dim=8",
    "network.word_dim=6",
    "network.filters=5",
    "network.windows=[1,2]",
    "loss.id_penalty=0.02",
    "loss.attribute_penalty=0.001",
    "training.batch_size=256",
    "training.learning_rate=0.01",
    "training.epochs=6",
)
SHAPE = RatingsShape(users=400, films=120, ratings=16_000)


def config(*overrides: str) -> FusionConfig:
    return load_fusion(None, (*SMALL, *overrides), {})


@cache
def ratings() -> tuple[MovieLens, Structure]:
    return generate_ratings(SHAPE, seed=3)


def train(settings: FusionConfig, data: MovieLens, positions: IntVector) -> Model:
    with TrainingProgress(Console(file=io.StringIO()), settings.training.epochs) as progress:
        return fit(settings, data, positions, progress)


@cache
def divided() -> tuple[IntVector, IntVector, IntVector]:
    """Positions of ratings: training, test ratings of known users, all ratings of new users."""
    data, _ = ratings()
    rng = np.random.default_rng(0)
    new = (rng.random(len(data.user_ids)) < 0.2)[data.user]
    test = rng.random(len(data.rating)) < 0.1
    return np.flatnonzero(~new & ~test), np.flatnonzero(~new & test), np.flatnonzero(new)


@cache
def trained() -> Model:
    return train(config(), ratings()[0], divided()[0])


def saved(folder: Path, **changed: FloatArray) -> FusionArtifact:
    """Write the trained model, with some weights changed."""
    data, model = ratings()[0], trained()
    return save_artifact(
        folder,
        weights={**model.weights, **changed},
        vocabulary=model.vocabulary,
        user_ids=data.user_ids,
        item_ids=np.array([film.id for film in data.films]),
        films=model.films,
        item_counts=np.bincount(data.film[divided()[0]], minlength=len(data.films)),
        config={"seed": 1},
        metrics={},
    )
