"""`movies_data.txt`: films as numbers that the film tower reads, in the published format with the title behind.

    1::811,1031,(1995)::2,3,4::Toy Story (1995)

id, words of the title with the year behind them, genres, title. The numbers are those of a model's vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.arrays import IdVector
from model.data.files import DataError, parse_int64
from model.data.limits import fault_of_item_id
from model.fusion.movielens import SEPARATOR, Film
from model.fusion.vocabulary import FilmInputs, Vocabulary, split_year

_COMMAND = "python -m model.fusion.movies -f movies.dat"


class FilmList(NamedTuple):
    """Films of a file.

    Attributes:
        ids: (n,) int64. titles: id → title. inputs: the films as the film tower reads them.
    """

    ids: IdVector
    titles: dict[int, str]
    inputs: FilmInputs


def write_films(path: Path, films: Sequence[Film], vocabulary: Vocabulary) -> None:
    """Write films.

    Raises:
        DataError: the file cannot be written.
    """
    lines = []
    for film in films:
        words = [*map(str, vocabulary.word_numbers(film.title)), split_year(film.title)[1]]
        genres = map(str, vocabulary.genre_numbers(film.genres))
        lines.append(SEPARATOR.join([str(film.id), ",".join(words), ",".join(genres), film.title]) + "\n")
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check the folder") from None


def read_films(path: Path, vocabulary: Vocabulary) -> FilmList:
    """Read the films that `write_films` wrote with the same vocabulary.

    Raises:
        DataError: the file is missing, damaged, or was written for another model.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); write it first: {_COMMAND}") from None
    titles: dict[int, str] = {}
    words, genres = [], []
    for number, line in enumerate(lines, 1):
        try:
            film, title, numbers, kinds = _parse(line, vocabulary)
            if film in titles:
                raise ValueError(f"a second line for film {film}")
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; write the file again: {_COMMAND}") from None
        titles[film] = title
        words.append(numbers)
        genres.append(kinds)
    if not titles:
        raise DataError(f"{path}: has no films; write it again: {_COMMAND}")
    return FilmList(np.array(list(titles), np.int64), titles, vocabulary.inputs(words, genres))


def _parse(line: str, vocabulary: Vocabulary) -> tuple[int, str, list[int], list[int]]:
    fields = line.split(SEPARATOR, 3)
    if len(fields) != 4:
        raise ValueError("expected id::words::genres::title")
    film = parse_int64(fields[0])
    if film is None or fault_of_item_id(film) is not None:
        raise ValueError(f"{fields[0]!r} is no film id")
    words = [int(word) for word in fields[1].split(",")[:-1]]
    if words != vocabulary.word_numbers(fields[3]):
        raise ValueError("the words have other numbers in this model: the file was written for another one")
    genres = [int(genre) for genre in fields[2].split(",") if genre]
    if not all(0 <= genre < len(vocabulary.genres) for genre in genres):
        raise ValueError("the model has no genre of this number: the file was written for another one")
    return film, fields[3], words, genres
