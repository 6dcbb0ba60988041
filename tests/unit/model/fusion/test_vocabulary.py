"""Titles and genres as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from model.fusion.movielens import Film
from model.fusion.vocabulary import UNKNOWN, Vocabulary, split_year, words_of

FILMS = [
    Film(1, "Toy Story (1995)", ("Animation", "Comedy")),
    Film(2, "Toy Story 2 (1999)", ("Animation",)),
    Film(3, "Schindler's Story (1993)", ("Drama",)),
]


@pytest.mark.parametrize(
    ("title", "words", "year"),
    [
        ("Toy Story (1995)", ["toy", "story"], "(1995)"),
        ("Schindler's List (1993)", ["schindler's", "list"], "(1993)"),
        ("Misérables, Les (1995)", ["misérables", "les"], "(1995)"),
        ("1984 (1984)", ["1984"], "(1984)"),
        ("No year", ["no", "year"], ""),
        ("...", [], ""),
    ],
)
def test_words_and_year_of_a_title(title: str, words: list[str], year: str) -> None:
    assert words_of(title) == words
    assert split_year(title)[1] == year


def test_words_of_two_titles_are_learned_and_all_others_are_one_unknown_word() -> None:
    vocabulary = Vocabulary.from_films(FILMS)
    assert vocabulary.words == ("story", "toy")
    assert vocabulary.genres == ("Animation", "Comedy", "Drama")
    assert vocabulary.word_rows == 4
    assert vocabulary.word_numbers("Toy Story 2 (1999)") == [3, 2, UNKNOWN]
    assert vocabulary.word_numbers("...") == [UNKNOWN]
    assert vocabulary.genre_numbers(("Drama", "Opera")) == [2]


def test_films_are_padded_and_their_genres_share_one() -> None:
    inputs = Vocabulary.from_films(FILMS).read(FILMS)
    assert inputs.words.tolist() == [[3, 2, 0], [3, 2, 1], [1, 2, 0]]
    np.testing.assert_array_equal(inputs.genres, np.array([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1]], np.float32))
    assert inputs.take(slice(1, 2)).words.tolist() == [[3, 2, 1]]


def test_a_vocabulary_survives_its_file() -> None:
    vocabulary = Vocabulary.from_films(FILMS)
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary
