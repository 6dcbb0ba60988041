"""The towers of users and films: shapes, lengths, and what a vector depends on."""

from __future__ import annotations

import numpy as np
import pytest

from model.fusion.net import initial_ids, initial_weights
from model.fusion.towers import film_vectors, user_vectors, widths, windows
from model.fusion.vocabulary import FilmInputs, Vocabulary
from tests.unit.model.fusion.small import config, ratings

NETWORK = config().network
VOCABULARY = Vocabulary.from_films(ratings()[0].films)
WEIGHTS = initial_weights(NETWORK, VOCABULARY, np.random.default_rng(0))
RNG = np.random.default_rng(1)


def test_vectors_have_length_1() -> None:
    films = VOCABULARY.read(ratings()[0].films[:30])
    ids = initial_ids(30, NETWORK, RNG)[1:]
    for vectors in (
        film_vectors(WEIGHTS, ids, films),
        user_vectors(WEIGHTS, ids, np.array(ratings()[0].profiles[:30])),
    ):
        assert vectors.shape == (30, NETWORK.dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_every_attribute_and_the_id_change_a_users_vector() -> None:
    ids = initial_ids(1, NETWORK, RNG)
    base = user_vectors(WEIGHTS, ids[:1], np.array([[0, 0, 0]]))
    for attributes in ([1, 0, 0], [0, 6, 0], [0, 0, 20]):
        assert not np.allclose(user_vectors(WEIGHTS, ids[:1], np.array([attributes])), base, atol=1e-3)
    assert not np.allclose(user_vectors(WEIGHTS, ids[1:], np.array([[0, 0, 0]])), base, atol=1e-3)


def test_a_films_vector_does_not_depend_on_the_padding_nor_on_other_films() -> None:
    films = VOCABULARY.read(ratings()[0].films[:10])
    ids = initial_ids(10, NETWORK, RNG)[1:]
    wider = FilmInputs(films.genres, np.pad(films.words, ((0, 0), (0, 4))))
    np.testing.assert_allclose(film_vectors(WEIGHTS, ids, wider), film_vectors(WEIGHTS, ids, films), atol=1e-6)
    alone = film_vectors(WEIGHTS, ids[3:4], films.take(slice(3, 4)))
    np.testing.assert_allclose(alone[0], film_vectors(WEIGHTS, ids, films)[3], atol=1e-6)


def test_the_order_of_words_changes_a_films_vector() -> None:
    genres = np.zeros((1, len(VOCABULARY.genres)), np.float32)
    one, other = (
        film_vectors(WEIGHTS, np.zeros((1, 12), np.float32), FilmInputs(genres, np.array([words])))
        for words in ([2, 3, 4], [4, 3, 2])
    )
    assert not np.allclose(one, other, atol=1e-4)


def test_windows_begin_at_each_word_and_are_padded_at_the_end() -> None:
    assert windows(np.array([[5, 6, 0]]), 2).tolist() == [[[5, 6], [6, 0], [0, 0]]]


@pytest.mark.parametrize("given", [(1,), (2, 3)])
def test_widths_are_read_from_the_weights(given: tuple[int, ...]) -> None:
    network = config(f"network.windows={list(given)}").network
    assert widths(initial_weights(network, VOCABULARY, np.random.default_rng(0))) == list(given)
