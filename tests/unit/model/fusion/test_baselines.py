"""The simple methods do what they say; the matrix factorisation finds planted factors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from model.fusion.baselines import (
    Factorisation,
    global_mean,
    item_mean,
    popular,
    popular_in_groups,
    tuned_factorisation,
)
from model.fusion.movielens import Film, MovieLens
from model.fusion.profiles import Profile
from model.fusion.training import errors

#: User 0 and 1 rate films 0 and 1; film 2 has no ratings.
SMALL = MovieLens(
    user_ids=np.array([1, 2]),
    profiles=[Profile(0, 0, 0), Profile(1, 0, 0)],
    films=[Film(number, "", ("Drama",)) for number in (1, 2, 3)],
    user=np.array([0, 1, 1, 0]),
    film=np.array([0, 0, 1, 2]),
    rating=np.array([1, 2, 5, 4], np.float32),
    time=np.arange(4),
)
TRAIN, TEST = np.arange(3), np.arange(4)


def test_means() -> None:
    assert global_mean(SMALL, TRAIN, TEST) == pytest.approx([8 / 3] * 4)
    assert item_mean(SMALL, TRAIN, TEST) == pytest.approx([1.5, 1.5, 5, 8 / 3])


def test_popular_films_overall_and_in_groups() -> None:
    assert popular(SMALL, TRAIN).tolist() == [0, 1, 2]
    assert {group: films.tolist() for group, films in popular_in_groups(SMALL, np.array([0, 1, 2, 2])).items()} == {
        (0, 0): [0, 1, 2],
        (1, 0): [1, 0, 2],
    }


def planted() -> MovieLens:
    rng = np.random.default_rng(0)
    users, films = rng.normal(0, 0.7, (150, 2)), rng.normal(0, 0.7, (80, 2))
    user, film = (axis.ravel() for axis in np.meshgrid(np.arange(150), np.arange(80), indexing="ij"))
    level = rng.normal(0, 0.4, 150)[user] + rng.normal(0, 0.4, 80)[film]
    rating = np.clip(3 + level + np.einsum("nk,nk->n", users[user], films[film]), 0.5, 5)
    return dataclasses.replace(
        SMALL,
        user_ids=np.arange(150),
        films=[Film(number, "", ("Drama",)) for number in range(1, 81)],
        user=user,
        film=film,
        rating=rating.astype(np.float32),
    )


def test_a_matrix_factorisation_finds_planted_factors() -> None:
    data = planted()
    test = np.random.default_rng(1).random(len(data.rating)) < 0.3
    fitted = Factorisation.fit(data, np.flatnonzero(~test), 2, 0.001)
    error = errors(fitted.predict(data.user[test], data.film[test]), data.rating[test])["rmse"]
    mean = errors(item_mean(data, np.flatnonzero(~test), np.flatnonzero(test)), data.rating[test])["rmse"]
    assert error < 0.15 * mean


def test_without_ratings_the_bias_of_the_other_side_remains() -> None:
    data = planted()
    fitted = Factorisation.fit(data, np.flatnonzero((data.user > 0) & (data.film > 0)), 2, 0.01)
    new = fitted.predict(np.array([0, 0, 5]), np.array([0, 7, 0]))
    assert new == pytest.approx([fitted.mean, fitted.mean + fitted.films[7, 0], fitted.mean + fitted.users[5, 0]])


def test_factors_and_penalty_are_those_with_the_smallest_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.fusion.baselines.FACTORS", (1, 2))
    monkeypatch.setattr("model.fusion.baselines.PENALTIES", (0.001, 10.0))
    data = planted()
    held = np.random.default_rng(1).random(len(data.rating)) < 0.2
    assert tuned_factorisation(data, np.flatnonzero(~held), np.flatnonzero(held)) == (2, 0.001)
