"""Divisions of ratings into training and test: at random, by time, by user."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from model.arrays import IntVector
from model.fusion.movielens import MovieLens

SplitName = Literal["random", "time", "user"]
#: What is predicted in each.
SPLITS: dict[SplitName, str] = {
    "random": "ratings at random, of users and films that are known",
    "time": "the newest ratings, most of them of new users, of whom only the attributes are known",
    "user": "all ratings of some users, who are new: only their attributes are known",
}


class Split(NamedTuple):
    """Positions of ratings, ascending."""

    train: IntVector
    test: IntVector


def split(data: MovieLens, at: IntVector, name: SplitName, share: float, seed: int) -> Split:
    """Divide the ratings at the positions `at`; `share` of them, or of the users, is the test.

    By time, the seed is not used.
    """
    rng = np.random.default_rng(seed)
    if name == "random":
        test = rng.random(len(at)) < share
    elif name == "user":
        test = (rng.random(len(data.user_ids)) < share)[data.user[at]]
    else:
        test = np.zeros(len(at), bool)
        test[np.argsort(data.time[at], kind="stable")[len(at) - round(share * len(at)) :]] = True
    return Split(at[~test], at[test])
