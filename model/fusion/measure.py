"""Figures of the fusion model and of what it is compared with, on the test ratings of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.arrays import DoubleArray, FloatVector, IdMatrix, IdVector, IntVector, Mask
from model.data.clicks import Clicks
from model.evaluation.metrics import CONFIDENCE, RESAMPLES, bootstrap, hits, ranking
from model.fusion.baselines import popular, popular_in_groups
from model.fusion.movielens import MovieLens
from model.fusion.splits import Split
from model.fusion.training import Model

#: Name of the model in the figures.
FUSION = "fusion"
#: A film is liked from this rating on; a new user's first so many liked films are targets.
LIKED, TARGETS = 4.0, 10
#: Length of the lists.
LENGTH = 50
#: Seed of the resamples.
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A figure, and the ends of its bootstrap interval over users."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Errors:
    """Errors of several methods on the same ratings, method → figure.

    Attributes:
        ratings, users: how many.
        more: root mean squared error minus that of the fusion model, on the same resamples; above 0 = worse.
    """

    ratings: int
    users: int
    rmse: dict[str, Estimate]
    mae: dict[str, float]
    more: dict[str, Estimate]


@dataclass(frozen=True)
class ColdRecall:
    """Recall of lists for new users, method → figure."""

    users: int
    recall: dict[str, Estimate]


def groups(data: MovieLens, split: Split) -> dict[str, Mask]:
    """Return which test ratings are those of all users, of known ones and of new ones; only groups with ratings."""
    number = np.bincount(data.user[split.train], minlength=len(data.user_ids))
    known = number[data.user[split.test]] > 0
    found = {"all": np.ones_like(known), "known users": known, "new users": ~known}
    mixed = known.any() and not known.all()
    return {name: mask for name, mask in found.items() if mask.any() and (mixed or name != "all")}


def errors_of(predicted: Mapping[str, FloatVector], rating: FloatVector, user: IntVector) -> Errors:
    """Return the errors of methods, of which one is `FUSION`.

    Args:
        predicted: method → (n,) predictions; rating: (n,); user: (n,) whose rating it is.
    """
    _, of = np.unique(user, return_inverse=True)
    wrong = {name: values.astype(np.float64) - rating for name, values in predicted.items()}
    sums = np.stack([np.bincount(of, square) for square in map(np.square, wrong.values())], axis=1)  # (U, M)
    number = np.bincount(of)
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(len(number), np.full(len(number), 1 / len(number)), RESAMPLES)  # (resamples, U)
    resampled = np.sqrt((drawn @ sums) / (drawn @ number)[:, None])  # (resamples, M)
    exact = np.sqrt(sums.sum(axis=0) / len(rating))
    own = list(predicted).index(FUSION)
    more = (exact - exact[own], resampled - resampled[:, [own]])
    return Errors(
        len(rating),
        len(number),
        _estimates(predicted, exact, resampled),
        {name: float(np.abs(values).mean()) for name, values in wrong.items()},
        {name: one for name, one in _estimates(predicted, *more).items() if name != FUSION},
    )


def cold_recall(data: MovieLens, split: Split, model: Model) -> ColdRecall:
    """Measure lists for the test users of a split by user: their attributes are known, their ratings are not.

    Another way from attributes to films, such as a profile tower of MIND, is compared by one more entry of `lists`.
    """
    liked = split.test[data.rating[split.test] >= LIKED]
    liked = liked[np.lexsort((data.time[liked], data.user[liked]))]
    users, first = np.unique(data.user[liked], return_index=True)
    number = np.minimum(np.diff(first, append=len(liked)), TARGETS)
    positions = np.concatenate([np.arange(begin, begin + n) for begin, n in zip(first, number, strict=True)])
    targets = Clicks(users, np.concatenate([[0], np.cumsum(number)]), data.film[liked[positions]])

    in_groups = popular_in_groups(data, split.train)
    lists: dict[str, IdMatrix] = {
        "popular": np.tile(popular(data, split.train)[:LENGTH], (len(users), 1)),
        "popular in the group": np.stack([in_groups[data.profiles[user][:2]][:LENGTH] for user in users]),
        FUSION: best(model, users),
    }
    recall = np.stack([ranking(*hits(top, targets))["recall"] for top in lists.values()], axis=1)
    low, high = bootstrap(recall, np.random.default_rng(_SEED))
    exact = recall.mean(axis=0)
    rows = zip(lists, exact, low, high, strict=True)
    return ColdRecall(len(users), {name: Estimate(*map(float, row)) for name, *row in rows})


def best(model: Model, users: IdVector) -> IdMatrix:
    """Return the films with the highest predicted ratings for users by position, (n, LENGTH), best first."""
    scores = model.user_vectors(users) @ model.film_vectors.T
    return np.argsort(-scores, axis=1, kind="stable")[:, :LENGTH]


def _estimates(names: Mapping[str, object], exact: DoubleArray, resampled: DoubleArray) -> dict[str, Estimate]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return {name: Estimate(*map(float, row)) for name, *row in zip(names, exact, low, high, strict=True)}
