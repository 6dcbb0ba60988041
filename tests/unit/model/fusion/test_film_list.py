"""`movies_data.txt` has the published format, and is refused if it belongs to another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.files import DataError
from model.fusion.film_list import read_films, write_films
from model.fusion.movielens import Film
from model.fusion.vocabulary import Vocabulary

FILMS = [
    Film(1, "Toy Story (1995)", ("Animation", "Comedy")),
    Film(9, "Toy :: Story, Où? (1999)", ("Comedy",)),
    Film(12, "Toy", ("Opera",)),
]
VOCABULARY = Vocabulary(("Animation", "Comedy"), ("story", "toy"))
TEXT = """\
1::3,2,(1995)::0,1::Toy Story (1995)
9::3,2,1,(1999)::1::Toy :: Story, Où? (1999)
12::3,::::Toy
"""


def test_films_are_written_as_numbers_with_the_title_behind(tmp_path: Path) -> None:
    write_films(tmp_path / "movies_data.txt", FILMS, VOCABULARY)
    assert (tmp_path / "movies_data.txt").read_text(encoding="utf-8") == TEXT


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "movies_data.txt"
    path.write_text(TEXT, encoding="utf-8")
    found, expected = read_films(path, VOCABULARY), VOCABULARY.read(FILMS)
    assert found.ids.tolist() == [1, 9, 12]
    assert found.titles == {film.id: film.title for film in FILMS}
    np.testing.assert_array_equal(found.inputs.words, expected.words)
    np.testing.assert_array_equal(found.inputs.genres, expected.genres)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1::2,3,(1995)::0,1::Toy Story (1995)", "the words have other numbers in this model"),
        ("1::3,2,(1995)::7::Toy Story (1995)", "the model has no genre of this number"),
        ("1::3,2,(1995)::0,1", "expected id::words::genres::title"),
        ("0::3,2,(1995)::0,1::Toy Story (1995)", "'0' is no film id"),
        ("1::toy,story,(1995)::0,1::Toy Story (1995)", "invalid literal"),
    ],
)
def test_a_line_of_another_model_or_format_is_refused(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "movies_data.txt"
    path.write_text(f"12::3,::::Toy\n{line}\n")
    with pytest.raises(DataError) as raised:
        read_films(path, VOCABULARY)
    assert str(raised.value).startswith(f"{path}, line 2: {reason}")
    assert "write the file again: python -m model.fusion.movies -f movies.dat" in str(raised.value)


def test_a_missing_an_empty_and_a_repeated_film_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "movies_data.txt"
    with pytest.raises(
        DataError, match=r"cannot be read \(No such file.*write it first: python -m model.fusion.movies"
    ):
        read_films(path, VOCABULARY)
    path.write_text("")
    with pytest.raises(DataError, match="has no films"):
        read_films(path, VOCABULARY)
    path.write_text("12::3,::::Toy\n" * 2)
    with pytest.raises(DataError, match="line 2: a second line for film 12"):
        read_films(path, VOCABULARY)
    with pytest.raises(DataError, match="cannot be written"):
        write_films(tmp_path / "missing" / "movies_data.txt", FILMS, VOCABULARY)
