"""Simple methods beside the fusion model: means, a matrix factorisation with biases, popular films."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.arrays import DoubleArray, FloatVector, IntVector
from model.fusion.movielens import MAX_RATING, MIN_RATING, MovieLens

#: Factors and penalties that are tried on held-out ratings.
FACTORS, PENALTIES = (10, 30), (0.03, 0.05, 0.08, 0.12)
#: Times that all users, then all films, are fitted.
SWEEPS = 10


def global_mean(data: MovieLens, train: IntVector, test: IntVector) -> FloatVector:
    """Predict the mean of all training ratings."""
    return np.full(len(test), data.rating[train].mean(), np.float32)


def item_mean(data: MovieLens, train: IntVector, test: IntVector) -> FloatVector:
    """Predict the film's mean rating; the mean of all for a film without ratings."""
    number = np.bincount(data.film[train], minlength=len(data.films))
    total = np.bincount(data.film[train], data.rating[train], minlength=len(data.films))
    mean = np.where(number > 0, total / np.maximum(number, 1), data.rating[train].mean())
    return mean[data.film[test]].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Factorisation:
    """A matrix factorisation with biases (Koren, Bell and Volinsky 2009), fitted by alternating least squares.

    The penalty is multiplied by the number of ratings (Zhou et al. 2008), so that it need not grow with the data. Users
    and films without ratings have zeros: the prediction is the mean plus the other's bias.

    Attributes:
        mean: of the ratings. users, films: (U, k + 1), (N, k + 1), bias first, then factors.
    """

    mean: float
    users: DoubleArray
    films: DoubleArray

    @classmethod
    def fit(
        cls, data: MovieLens, train: IntVector, factors: int, penalty: float, sweeps: int = SWEEPS, seed: int = 1
    ) -> Factorisation:
        """Fit it to the ratings at the positions `train`."""
        rng = np.random.default_rng(seed)
        mean = float(data.rating[train].mean())
        users = np.zeros((len(data.user_ids), factors + 1))
        films = rng.normal(0, 0.1, (len(data.films), factors + 1))
        films[:, 0] = 0
        user, film, rating = data.user[train], data.film[train], data.rating[train] - mean
        for _ in range(sweeps):
            _solve(users, films, user, film, rating, penalty)
            _solve(films, users, film, user, rating, penalty)
        films[np.bincount(film, minlength=len(films)) == 0] = 0
        return cls(mean, users, films)

    def predict(self, user: IntVector, film: IntVector) -> FloatVector:
        """Return predicted ratings, (n,), of users and films by position."""
        u, v = self.users[user], self.films[film]
        rating = self.mean + u[:, 0] + v[:, 0] + np.einsum("nk,nk->n", u[:, 1:], v[:, 1:])
        predicted: FloatVector = np.clip(rating, MIN_RATING, MAX_RATING).astype(np.float32)
        return predicted


def tuned_factorisation(data: MovieLens, train: IntVector, held: IntVector) -> tuple[int, float]:
    """Return the factors and the penalty that predict the ratings at the positions `held` best."""

    def error(choice: tuple[int, float]) -> float:
        fitted = Factorisation.fit(data, train, *choice)
        wrong = fitted.predict(data.user[held], data.film[held]) - data.rating[held]
        return float(np.square(wrong).mean())

    return min(((factors, penalty) for factors in FACTORS for penalty in PENALTIES), key=error)


def _solve(
    own: DoubleArray, others: DoubleArray, of: IntVector, other: IntVector, rating: FloatVector, penalty: float
) -> None:
    """Set each row of `own` to the least-squares solution for its ratings, given the rows of `others`."""
    order = np.argsort(of, kind="stable")
    begin = np.searchsorted(of[order], np.arange(len(own) + 1))
    other, rating = other[order], rating[order]
    for row in np.flatnonzero(np.diff(begin)):
        at = slice(begin[row], begin[row + 1])
        features = others[other[at]].copy()
        wanted = rating[at] - features[:, 0]  # without the other's bias
        features[:, 0] = 1.0  # for the own bias
        normal = features.T @ features
        normal[np.diag_indices_from(normal)] += penalty * len(wanted)
        own[row] = np.linalg.solve(normal, features.T @ wanted)


def popular(data: MovieLens, train: IntVector) -> IntVector:
    """Return all films by position, those with the most training ratings first."""
    return np.argsort(-np.bincount(data.film[train], minlength=len(data.films)), kind="stable")


def popular_in_groups(data: MovieLens, train: IntVector) -> dict[tuple[int, int], IntVector]:
    """Return (gender, age) → films, those with the most training ratings of users of the group first."""
    groups = np.array([(profile.gender, profile.age) for profile in data.profiles])[data.user[train]]
    overall = popular(data, train)
    rank = np.argsort(overall)
    found = {}
    for gender, age in {(profile.gender, profile.age) for profile in data.profiles}:
        of_group = (groups == (gender, age)).all(axis=1)
        number = np.bincount(data.film[train[of_group]], minlength=len(data.films))
        found[gender, age] = np.lexsort((rank, -number))  # equally popular ones as overall
    return found
