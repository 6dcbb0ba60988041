"""Words of film titles and genres as numbers, and films as the film tower reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from model.arrays import FloatMatrix, IdMatrix, IntVector
from model.fusion.movielens import Film

#: Words that are no word of the vocabulary: none, and one that it lacks.
PADDING, UNKNOWN = 0, 1
#: Films in which a word must occur to be learned; rarer ones train the vector of unknown words.
MIN_FILMS = 2

_YEAR = re.compile(r"\s*\(\d{4}(?:-\d{4})?\)\s*$")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class FilmInputs(NamedTuple):
    """Films without their ids, as the film tower reads them.

    Attributes:
        genres: (n, G) float32, rows sum to 1; all 0 for a film without a known genre.
        words: (n, T) int64, words of the titles, at least one each, padded at the end with `PADDING`.
    """

    genres: FloatMatrix
    words: IdMatrix

    def take(self, index: IntVector | slice) -> FilmInputs:
        """Return the films at these positions."""
        return FilmInputs(self.genres[index], self.words[index])


def split_year(title: str) -> tuple[str, str]:
    """Return the title without its year, and the year as it is written, such as "(1995)"; "" if it has none."""
    match = _YEAR.search(title)
    return (title, "") if match is None else (title[: match.start()], match[0].strip())


def words_of(title: str) -> list[str]:
    """Return the words of a title in lower case, without the year."""
    return _WORD.findall(split_year(title)[0].lower())


@dataclass(frozen=True)
class Vocabulary:
    """Known genres and words, each in a fixed order; a genre's number counts from 0, that of a word from 2."""

    genres: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def from_films(cls, films: Iterable[Film]) -> Vocabulary:
        """Return all genres of these films, and the words of at least `MIN_FILMS` titles, in alphabetical order."""
        films = list(films)
        number = Counter(word for film in films for word in set(words_of(film.title)))
        genres = sorted({genre for film in films for genre in film.genres})
        return cls(tuple(genres), tuple(sorted(word for word, n in number.items() if n >= MIN_FILMS)))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Sequence[str]]) -> Vocabulary:
        """Return what `to_dict` described; KeyError if it described something else."""
        return cls(tuple(stored["genres"]), tuple(stored["words"]))

    def to_dict(self) -> dict[str, list[str]]:
        """Return it as JSON values."""
        return {"genres": list(self.genres), "words": list(self.words)}

    @property
    def word_rows(self) -> int:
        """Rows of the table of word vectors: padding, unknown, and a row for each word."""
        return len(self.words) + 2

    def word_numbers(self, title: str) -> list[int]:
        """Return the numbers of a title's words; a title without words counts as one unknown word."""
        known = self._known_words
        return [known.get(word, UNKNOWN) for word in words_of(title)] or [UNKNOWN]

    def genre_numbers(self, genres: Iterable[str]) -> list[int]:
        """Return the numbers of genres; unknown ones are left out."""
        known = {genre: number for number, genre in enumerate(self.genres)}
        return [known[genre] for genre in genres if genre in known]

    def inputs(self, words: Sequence[Sequence[int]], genres: Sequence[Sequence[int]]) -> FilmInputs:
        """Return films given as numbers of words and of genres."""
        T = max((len(title) for title in words), default=0)
        padded = np.full((len(words), T), PADDING, np.int64)
        shares = np.zeros((len(words), len(self.genres)), np.float32)
        for row, (title, kinds) in enumerate(zip(words, genres, strict=True)):
            padded[row, : len(title)] = title
            if kinds:
                shares[row, list(kinds)] = 1 / len(kinds)
        return FilmInputs(shares, padded)

    def read(self, films: Sequence[Film]) -> FilmInputs:
        """Return films as the film tower reads them."""
        return self.inputs(
            [self.word_numbers(film.title) for film in films], [self.genre_numbers(film.genres) for film in films]
        )

    @cached_property
    def _known_words(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, UNKNOWN + 1)}
