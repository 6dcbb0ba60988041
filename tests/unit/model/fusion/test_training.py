"""The model learns the planted structure: of known users, and of new ones by their attributes."""

from __future__ import annotations

import numpy as np
import pytest

from model.arrays import FloatVector, IntVector
from model.fusion.baselines import item_mean
from model.fusion.training import errors
from model.training.trainer import DivergenceError
from tests.unit.model.fusion.small import config, divided, ratings, train, trained


def rmse(predicted: FloatVector, at: IntVector) -> float:
    return errors(predicted, ratings()[0].rating[at])["rmse"]


@pytest.mark.parametrize(("group", "share"), [(1, 0.6), (2, 0.4)])
def test_most_of_what_can_be_known_beyond_the_films_mean_is_learned(group: int, share: float) -> None:
    data, structure = ratings()
    at = divided()[group]
    user, film = data.user[at], data.film[at]
    mean = rmse(item_mean(data, divided()[0], at), at)
    best = rmse(structure.expected(user, film).astype(np.float32), at)
    found = rmse(trained().predict(user, film), at)
    assert found < mean - share * (mean - best), (mean, found, best)


def test_predictions_are_ratings() -> None:
    data, _ = ratings()
    predicted = trained().predict(data.user, data.film)
    assert predicted.shape == data.rating.shape
    assert predicted.dtype == np.float32
    assert predicted.min() >= 0.5 and predicted.max() <= 5


def test_users_and_films_without_ratings_have_the_row_of_new_ones() -> None:
    data, _ = ratings()
    weights, new = trained().weights, np.unique(data.user[divided()[2]])
    assert (weights["user"][new + 1] == weights["user"][0]).all()
    few = train(config("training.epochs=1"), data, divided()[0][:50])
    unrated = np.setdiff1d(np.arange(len(data.films)), data.film[divided()[0][:50]])
    assert len(unrated) and (few.weights["film"][unrated + 1] == few.weights["film"][0]).all()


def test_the_same_seed_gives_the_same_model() -> None:
    data, _ = ratings()
    models = [train(config("training.epochs=1", f"training.seed={seed}"), data, divided()[0]) for seed in (1, 1, 2)]
    one, same, other = (model.film_vectors for model in models)
    assert (one == same).all()
    assert not np.allclose(one, other)


def test_a_diverging_training_ends_with_its_remedy() -> None:
    with pytest.raises(DivergenceError, match=r"epoch 1: the loss is .*; lower training\.learning_rate \(now 1e\+30\)"):
        train(config("training.learning_rate=1e30"), ratings()[0], divided()[0])


def test_errors_are_root_mean_squared_and_mean_absolute() -> None:
    assert errors(np.array([3, 5], np.float32), np.array([4, 2], np.float32)) == pytest.approx(
        {"rmse": np.sqrt(5), "mae": 2}
    )
    assert errors(np.empty(0, np.float32), np.empty(0, np.float32)) == {}
