"""A step trains the ids of its batch, and the row of new users and films where ids are dropped."""

from __future__ import annotations

import numpy as np

from model.fusion.learner import Learner, RatingBatch
from model.fusion.vocabulary import Vocabulary
from tests.unit.model.fusion.small import config, ratings

DATA = ratings()[0]
VOCABULARY = Vocabulary.from_films(DATA.films)


def learner(*overrides: str) -> Learner:
    return Learner(config(*overrides), VOCABULARY, np.array(DATA.profiles), VOCABULARY.read(DATA.films))


def batch(known_user: list[bool], known_film: list[bool]) -> RatingBatch:
    return RatingBatch(
        np.array([0, 5, 5]),
        np.array([7, 7, 9]),
        np.array([1, 5, 3], np.float32),
        np.array(known_user),
        np.array(known_film),
    )


def changed(table: str, one: Learner, drawn: RatingBatch) -> list[int]:
    before = one.weights()[table]
    one.step(drawn, 0.01)
    rows = np.flatnonzero((one.weights()[table] != before).any(axis=1))
    return [int(row) for row in rows]


def test_a_step_trains_the_rows_of_its_ids_only() -> None:
    drawn = batch([True] * 3, [True] * 3)
    assert changed("user", learner(), drawn) == [1, 6]
    assert changed("film", learner(), drawn) == [8, 10]


def test_a_dropped_id_trains_the_row_of_new_ones() -> None:
    assert changed("user", learner(), batch([False, True, False], [True] * 3)) == [0, 6]
    assert changed("film", learner(), batch([True] * 3, [False, False, False])) == [0]


def test_steps_on_the_same_ratings_lower_the_error() -> None:
    one, drawn = learner(), batch([True] * 3, [True] * 3)
    first = one.step(drawn, 0.01)
    for _ in range(50):
        last = one.step(drawn, 0.01)
    assert last < 0.1 * first


def test_the_penalty_keeps_ids_short() -> None:
    lengths = []
    for penalty in (0, 1):
        one = learner(f"loss.id_penalty={penalty}")
        for _ in range(50):
            one.step(batch([True] * 3, [True] * 3), 0.01)
        lengths.append(np.linalg.norm(one.weights()["user"][[1, 6]]))
    assert lengths[1] < 0.5 * lengths[0]


def test_the_penalty_on_attributes_keeps_what_they_add_short() -> None:
    lengths = []
    for penalty in (0, 1):
        one = learner(f"loss.attribute_penalty={penalty}", "loss.id_penalty=0")
        for _ in range(50):
            one.step(batch([False] * 3, [True] * 3), 0.01)
        weights = one.weights()
        lengths.append(np.linalg.norm(weights["age"] @ weights["age_map"]))
    assert lengths[1] < 0.5 * lengths[0]
