"""Read MovieLens-1M: `users.dat`, `movies.dat` and `ratings.dat` from a folder or a zip archive.

Fields are separated by `::`. Each file may be plain, gzip, xz, or a zip archive with that file; its first bytes tell.
Text is Latin-1, as published; a copy that was converted to UTF-8 is recognised.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from model.arrays import DoubleArray, FloatVector, IdVector, IntVector
from model.data.files import DataError, parse_int64
from model.data.limits import fault_of_item_id
from model.data.malformed import MalformedLines
from model.fusion.profiles import AGE_CODES, GENDER_CODES, JOBS, Profile

SEPARATOR = "::"
#: Endings of the files' names in a folder.
_ENDINGS = ("", ".xz", ".gz", ".zip")
MIN_RATING, MAX_RATING = 0.5, 5.0
#: Maximum number of characters of a line in an error message.
_MAX_SHOWN = 60

Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Film:
    """A line of movies.dat.

    Attributes:
        title: with the year in parentheses, as MovieLens writes it.
    """

    id: int
    title: str
    genres: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Users, films and their ratings.

    Attributes:
        user_ids: (U,) int64; profiles: U of them, in the same order.
        films: N of them, by ascending id.
        user, film: (R,) int64, positions in `user_ids` and `films`. rating: (R,) float32. time: (R,) int64, seconds.
    """

    user_ids: IdVector
    profiles: list[Profile]
    films: list[Film]
    user: IntVector
    film: IntVector
    rating: FloatVector
    time: IntVector

    def __str__(self) -> str:
        return f"{len(self.rating):,} ratings of {len(self.films):,} films by {len(self.user_ids):,} users"


def read_movielens(path: Path, malformed: MalformedLines) -> MovieLens:
    """Read the three files.

    Args:
        path: a folder, or a zip archive, with them.

    Raises:
        DataError: a file is missing or cannot be read, has no line of use, or a line is malformed and `malformed` does
            not skip it.
    """
    users = dict(_rows(*_open(path, "users.dat"), _parse_user, malformed))
    films = {film.id: film for film in read_films(*_open(path, "movies.dat"), malformed)}
    user_ids = np.array(sorted(users), np.int64)
    film_ids = np.array(sorted(films), np.int64)
    ratings = _read_ratings(*_open(path, "ratings.dat"), user_ids, film_ids, malformed)
    return MovieLens(
        user_ids, [users[user] for user in user_ids.tolist()], [films[film] for film in film_ids.tolist()], *ratings
    )


def read_film_file(path: Path, malformed: MalformedLines) -> list[Film]:
    """Read one file in the format of movies.dat, by ascending id.

    Raises:
        DataError: as `read_movielens`.
    """
    return sorted(read_films(str(path), _unpack(path, path.name), malformed), key=lambda film: film.id)


def read_films(name: str, text: str, malformed: MalformedLines) -> Iterator[Film]:
    """Yield the films in the text of a file.

    Raises:
        DataError: see `read_movielens`.
    """
    return (film for _, film in _rows(name, text, _parse_film, malformed))


def _open(path: Path, name: str) -> tuple[str, str]:
    """Return the name for messages, and the text, of one of the three files."""
    if path.is_dir():
        for ending in _ENDINGS:
            if (file := path / f"{name}{ending}").is_file():
                return str(file), _unpack(file, name)
        raise DataError(f"{path}: has no {name}, plain, .xz, .gz or .zip; give the folder of MovieLens-1M")
    return f"{path}/{name}", _unpack(path, name)


def _unpack(path: Path, name: str) -> str:
    """Return the text of a file, or of the member `name` of a zip archive."""
    try:
        data = path.read_bytes()
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                found = [member for member in archive.namelist() if Path(member).name == name.removesuffix(".zip")]
                if len(found) != 1:
                    raise DataError(f"{path}: the archive has {len(found)} files {name}; it needs one")
                data = archive.read(found[0])
        elif data.startswith(b"\xfd7zXZ"):
            data = lzma.decompress(data)
        elif data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: cannot be read ({reason}); give a folder or a zip archive with users.dat, movies.dat, ratings.dat"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _rows(
    name: str, text: str, parse: Callable[[str], tuple[int, Row]], malformed: MalformedLines
) -> Iterator[tuple[int, Row]]:
    """Yield id and value of each line.

    Raises:
        DataError: no line is of use, or one is malformed and is not skipped.
    """
    seen: set[int] = set()
    for number, line in _lines(text):
        malformed.add_lines(name, 1)
        try:
            key, value = parse(line)
            if key in seen:
                raise ValueError(f"a second line for id {key}")
        except ValueError as error:
            malformed.skip(name, number, error)
            continue
        seen.add(key)
        yield key, value
    if not seen:
        raise DataError(f"{name}: no line can be used; it has lines with fields separated by ::, as in MovieLens-1M")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _parse_user(line: str) -> tuple[int, Profile]:
    fields = line.split(SEPARATOR)
    if len(fields) != 5:
        raise ValueError(f"expected UserID::Gender::Age::Occupation::Zip-code, found {_show(line)}")
    user, gender, age, job = fields[:4]
    if gender not in GENDER_CODES:
        raise ValueError(f"a gender is M or F, found {_show(gender)}")
    if age not in (codes := [str(code) for code in AGE_CODES]):
        raise ValueError(f"an age is one of {', '.join(codes)}, found {_show(age)}")
    if job not in (codes := [str(code) for code in range(len(JOBS))]):
        raise ValueError(f"an occupation is a number from 0 to {len(JOBS) - 1}, found {_show(job)}")
    return _id("user", user), Profile(GENDER_CODES.index(gender), AGE_CODES.index(int(age)), int(job))


def _parse_film(line: str) -> tuple[int, Film]:
    film, *title, genres = line.split(SEPARATOR)
    names = tuple(name.strip() for name in genres.split("|"))
    if not title or not (text := SEPARATOR.join(title).strip()) or not all(names):
        raise ValueError(f"expected MovieID::Title::Genre|Genre, found {_show(line)}")
    film_id = _id("film", film)
    return film_id, Film(film_id, text, names)


def _id(kind: str, text: str) -> int:
    number = parse_int64(text)
    if number is None or number < 1:
        raise ValueError(f"a {kind} id is a number from 1, found {_show(text)}")
    if (fault := fault_of_item_id(number)) is not None:
        raise ValueError(f"the {kind} id {fault}")
    return number


def _read_ratings(
    name: str, text: str, user_ids: IdVector, film_ids: IdVector, malformed: MalformedLines
) -> tuple[IntVector, IntVector, FloatVector, IntVector]:
    """Return users and films as positions, ratings and times, (R,) each."""
    table = _fast_ratings(text, user_ids, film_ids)
    if table is None:
        users = {user: position for position, user in enumerate(user_ids.tolist())}
        films = {film: position for position, film in enumerate(film_ids.tolist())}
        rows = []
        for number, line in _lines(text):
            malformed.add_lines(name, 1)
            try:
                rows.append(_parse_rating(line, users, films))
            except ValueError as error:
                malformed.skip(name, number, error)
        table = np.array(rows, np.float64).reshape(-1, 4)
    else:
        malformed.add_lines(name, len(table))
    if not len(table):
        raise DataError(f"{name}: no line can be used; lines are UserID::MovieID::Rating::Timestamp")
    user, film, rating, time = table.T
    return user.astype(np.int64), film.astype(np.int64), rating.astype(np.float32), time.astype(np.int64)


def _fast_ratings(text: str, user_ids: IdVector, film_ids: IdVector) -> DoubleArray | None:
    """Return (R, 4) user, film (positions), rating and time; None if a line is malformed."""
    lines = text.count("\n") + (not text.endswith("\n"))
    if text.count(SEPARATOR) != 3 * lines:
        return None
    try:
        table = np.array(text.replace(SEPARATOR, " ").split(), np.float64).reshape(lines, 4)
    except ValueError:
        return None
    for column, ids in enumerate((user_ids, film_ids)):
        position = np.minimum(np.searchsorted(ids, table[:, column]), len(ids) - 1)
        if (ids[position] != table[:, column]).any():
            return None
        table[:, column] = position
    fits = (table[:, 2] >= MIN_RATING) & (table[:, 2] <= MAX_RATING) & (table[:, 3] >= 0) & (table[:, 3] % 1 == 0)
    return table if fits.all() else None


def _parse_rating(line: str, users: dict[int, int], films: dict[int, int]) -> tuple[int, int, float, int]:
    fields = line.split(SEPARATOR)
    if len(fields) != 4:
        raise ValueError(f"expected UserID::MovieID::Rating::Timestamp, found {_show(line)}")
    user, film, time = _id("user", fields[0]), _id("film", fields[1]), parse_int64(fields[3])
    if user not in users:
        raise ValueError(f"users.dat has no user {user}")
    if film not in films:
        raise ValueError(f"movies.dat has no film {film}")
    try:
        rating = float(fields[2])
    except ValueError:
        rating = 0.0
    if not MIN_RATING <= rating <= MAX_RATING:
        raise ValueError(f"a rating is a number from {MIN_RATING:g} to {MAX_RATING:g}, found {_show(fields[2])}")
    if time is None or time < 0:
        raise ValueError(f"a time is a whole number of seconds since 1970, found {_show(fields[3])}")
    return users[user], films[film], rating, time


def _show(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…")
