"""Synthetic ratings have the planted structure, and sizes as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.synthetic_ratings import GENRES, NOISE, RatingsShape, generate_ratings


@settings(max_examples=30)
@given(users=st.integers(1, 40), films=st.integers(2, 60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_sizes_are_those_of_the_shape_and_no_film_is_rated_twice(
    users: int, films: int, share: float, seed: int
) -> None:
    most = users * films // 2
    number = users + int(share * (most - users))
    data, structure = generate_ratings(RatingsShape(users, films, number), seed)
    assert (len(data.user_ids), len(data.profiles), len(data.films), len(data.rating)) == (users, users, films, number)
    assert len(np.unique(data.user * films + data.film)) == number
    assert set(data.rating.tolist()) <= {1, 2, 3, 4, 5}
    assert (np.bincount(data.user, minlength=users) > 0).all()
    assert structure.genres.sum(axis=1) == pytest.approx(np.ones(films))
    assert all(set(film.genres) <= GENRES.keys() for film in data.films)


def test_ratings_are_the_expected_ones_with_noise() -> None:
    data, structure = generate_ratings(RatingsShape(300, 100, 9000), seed=1)
    expected = structure.expected(data.user, data.film)
    inside = (expected > 2) & (expected < 4)
    assert np.std((data.rating - expected)[inside]) == pytest.approx(NOISE, rel=0.1)


def test_users_with_the_same_attributes_like_the_same_genres() -> None:
    data, structure = generate_ratings(RatingsShape(2000, 100, 40_000), seed=1)
    groups = np.unique([profile[:2] for profile in data.profiles], axis=0, return_inverse=True)[1].ravel()
    means = np.stack([structure.liking[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
    assert means.var(axis=0).mean() > 0.3 * structure.liking.var(axis=0).mean()


def test_the_seed_decides() -> None:
    one, same, other = (generate_ratings(RatingsShape(20, 30, 200), seed)[0].rating.tolist() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, 0, 5), (5, 5, 4), (5, 5, 13)])
def test_sizes_that_contradict_each_other_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="users"):
        RatingsShape(*sizes)
