"""Errors with intervals, groups of users, and recall for new users."""

from __future__ import annotations

import numpy as np
import pytest

from model.fusion.measure import FUSION, LENGTH, best, cold_recall, errors_of, groups
from model.fusion.splits import Split
from tests.unit.model.fusion.small import divided, ratings, trained

DATA = ratings()[0]
TRAIN, KNOWN, NEW = divided()


def test_errors_have_intervals_over_users_and_differences_from_the_fusion_model() -> None:
    rng = np.random.default_rng(0)
    rating, user = rng.normal(size=4000).astype(np.float32), np.repeat(np.arange(400), 10)
    predicted = {"worse": rating + 2, FUSION: rating - 1, "same": rating + 1}
    found = errors_of(predicted, rating, user)
    assert (found.ratings, found.users) == (4000, 400)
    assert {name: one.value for name, one in found.rmse.items()} == pytest.approx({"worse": 2, FUSION: 1, "same": 1})
    assert found.mae == pytest.approx({"worse": 2, FUSION: 1, "same": 1})
    assert {name: one.value for name, one in found.more.items()} == pytest.approx({"worse": 1, "same": 0}, abs=1e-6)
    noisy = errors_of({FUSION: np.zeros_like(rating)}, rating, user).rmse[FUSION]
    assert noisy.low < noisy.value < noisy.high
    assert noisy.high - noisy.low == pytest.approx(2 * 1.96 / np.sqrt(2 * 4000), rel=0.2)


def test_groups_are_named_only_where_they_differ() -> None:
    assert list(groups(DATA, Split(TRAIN, KNOWN))) == ["known users"]
    assert list(groups(DATA, Split(TRAIN, NEW))) == ["new users"]
    both = groups(DATA, Split(TRAIN, np.concatenate([KNOWN, NEW])))
    assert {name: int(mask.sum()) for name, mask in both.items()} == {
        "all": len(KNOWN) + len(NEW),
        "known users": len(KNOWN),
        "new users": len(NEW),
    }


def test_lists_are_the_films_with_the_highest_predicted_ratings() -> None:
    users = np.unique(DATA.user[NEW])[:3]
    films = best(trained(), users)
    assert films.shape == (3, LENGTH)
    for user, found in zip(users, films, strict=True):
        predicted = trained().predict(np.full(len(DATA.films), user), np.arange(len(DATA.films)))
        assert predicted[found].min() >= np.delete(predicted, found).max() - 1e-5


def test_recall_of_new_users_is_beside_popular_films() -> None:
    found = cold_recall(DATA, Split(TRAIN, NEW), trained())
    liked = NEW[DATA.rating[NEW] >= 4]
    assert found.users == len(np.unique(DATA.user[liked]))
    assert list(found.recall) == ["popular", "popular in the group", FUSION]
    number = np.bincount(DATA.film[TRAIN], minlength=len(DATA.films))
    top = np.argsort(-number, kind="stable")[:LENGTH]
    recalls = []
    for user in np.unique(DATA.user[liked]):
        first = liked[DATA.user[liked] == user]
        targets = DATA.film[first[np.argsort(DATA.time[first], kind="stable")][:10]]
        recalls.append(np.isin(targets, top).mean())
    one = found.recall["popular"]
    assert one.value == pytest.approx(np.mean(recalls))
    assert one.low < one.value < one.high
