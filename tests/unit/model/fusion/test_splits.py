"""Splits at random, by time and by user."""

from __future__ import annotations

import numpy as np
import pytest

from model.fusion.splits import SPLITS, SplitName, split
from tests.unit.model.fusion.small import ratings

DATA = ratings()[0]
ALL = np.arange(len(DATA.rating))


@pytest.mark.parametrize("name", SPLITS)
def test_every_rating_is_in_one_part(name: SplitName) -> None:
    train, test = split(DATA, ALL, name, 0.1, seed=1)
    assert (np.sort(np.concatenate([train, test])) == ALL).all()
    assert len(test) / len(ALL) == pytest.approx(0.1, abs=0.03)
    nested = split(DATA, train, name, 0.1, seed=2)
    assert (np.sort(np.concatenate(nested)) == train).all()
    assert len(nested.test)


def test_by_user_the_test_users_are_new() -> None:
    train, test = split(DATA, ALL, "user", 0.1, seed=1)
    assert not np.intersect1d(DATA.user[train], DATA.user[test]).size


def test_by_time_the_test_ratings_are_the_newest() -> None:
    train, test = split(DATA, ALL, "time", 0.1, seed=1)
    assert DATA.time[train].max() <= DATA.time[test].min()


@pytest.mark.parametrize("name", ["random", "user"])
def test_the_seed_decides(name: SplitName) -> None:
    one, same, other = (split(DATA, ALL, name, 0.1, seed).test.tolist() for seed in (1, 1, 2))
    assert one == same != other
