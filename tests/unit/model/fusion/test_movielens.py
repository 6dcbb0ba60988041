"""MovieLens' files are read plain or packed; a malformed line is named by file and number."""

from __future__ import annotations

import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.data.files import DataError
from model.data.malformed import SETTING, MalformedLines
from model.fusion.movielens import Film, MovieLens, read_film_file, read_movielens
from model.fusion.profiles import Profile

USERS = "1::F::1::10::48067\n3::M::25::15::55117\n"
MOVIES = "7::Misérables, Les (1995)::Drama|Musical\n2::Jumanji (1995)::Adventure\n"
RATINGS = "3::7::4::978300760\n1::2::5::978300761\n3::2::1::978300762\n"
FILES = {"users.dat": USERS, "movies.dat": MOVIES, "ratings.dat": RATINGS}


def _plain(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


def _xz(folder: Path, name: str, data: bytes) -> None:
    (folder / f"{name}.xz").write_bytes(lzma.compress(data))


def _gz(folder: Path, name: str, data: bytes) -> None:
    (folder / f"{name}.gz").write_bytes(gzip.compress(data))


def _zip(folder: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        archive.writestr(name, data)


def write(folder: Path, encoding: str = "latin-1", **changed: str) -> Path:
    for name, text in FILES.items():
        _plain(folder, name, changed.get(name.removesuffix(".dat"), text).encode(encoding))
    return folder


def check(data: MovieLens) -> None:
    assert data.user_ids.tolist() == [1, 3]
    assert data.profiles == [Profile(1, 0, 10), Profile(0, 2, 15)]
    assert [film.id for film in data.films] == [2, 7]
    assert (data.films[1].title, data.films[1].genres) == ("Misérables, Les (1995)", ("Drama", "Musical"))
    assert (data.user.tolist(), data.film.tolist(), data.rating.tolist()) == ([1, 0, 1], [1, 0, 0], [4, 5, 1])
    assert data.time.tolist() == [978300760, 978300761, 978300762]
    assert data.rating.dtype == np.float32
    assert str(data) == "3 ratings of 2 films by 2 users"


@pytest.mark.parametrize("pack", [_plain, _xz, _gz, _zip])
def test_a_folder_of_files_plain_or_packed(tmp_path: Path, pack: Callable[[Path, str, bytes], None]) -> None:
    for name, text in FILES.items():
        pack(tmp_path, name, text.encode("latin-1"))
    check(read_movielens(tmp_path, MalformedLines()))


def test_an_archive_with_all_files_in_a_folder_as_published(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for name, text in FILES.items():
            archive.writestr(f"ml-1m/{name}", text.encode("latin-1"))
    check(read_movielens(tmp_path / "ml-1m.zip", MalformedLines()))


def test_a_copy_in_utf_8_is_recognised(tmp_path: Path) -> None:
    check(read_movielens(write(tmp_path, "utf-8"), MalformedLines()))


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("users", "4::F::18::1", "expected UserID::Gender::Age::Occupation::Zip-code"),
        ("users", "4::X::18::1::1", "a gender is M or F, found 'X'"),
        ("users", "4::F::19::1::1", "an age is one of 1, 18, 25, 35, 45, 50, 56, found '19'"),
        ("users", "4::F::18::21::1", "an occupation is a number from 0 to 20, found '21'"),
        ("users", "0::F::18::1::1", "a user id is a number from 1, found '0'"),
        ("users", "3::F::18::1::1", "a second line for id 3"),
        ("movies", "8::No genres (1999)", "expected MovieID::Title::Genre|Genre"),
        ("movies", "8::::Drama", "expected MovieID::Title::Genre|Genre"),
        ("movies", "8::An empty genre (1999)::Drama|", "expected MovieID::Title::Genre|Genre"),
        ("movies", "x::Film (1999)::Drama", "a film id is a number from 1, found 'x'"),
        ("movies", "7::Film (1999)::Drama", "a second line for id 7"),
        ("ratings", "3::7::4", "expected UserID::MovieID::Rating::Timestamp"),
        ("ratings", "9::7::4::978300760", "users.dat has no user 9"),
        ("ratings", "3::9::4::978300760", "movies.dat has no film 9"),
        ("ratings", "3::7::6::978300760", "a rating is a number from 0.5 to 5, found '6'"),
        ("ratings", "3::7::good::978300760", "a rating is a number from 0.5 to 5, found 'good'"),
        ("ratings", "3::7::nan::978300760", "a rating is a number from 0.5 to 5, found 'nan'"),
        ("ratings", "3::7::4::yesterday", "a time is a whole number of seconds since 1970, found 'yesterday'"),
    ],
)
def test_a_malformed_line_is_named_or_left_out(tmp_path: Path, file: str, line: str, reason: str) -> None:
    text = FILES[f"{file}.dat"]
    number = text.count("\n") + 1
    write(tmp_path, **{file: f"{text}{line}\n"})
    with pytest.raises(DataError) as raised:
        read_movielens(tmp_path, MalformedLines("fail", SETTING))
    assert str(raised.value).startswith(f"{tmp_path / file}.dat, line {number}: {reason}")
    assert "--set data.malformed=skip" in str(raised.value)
    skipped = MalformedLines("skip")
    check(read_movielens(tmp_path, skipped))
    assert [(one.first, one.malformed, one.lines) for one in skipped.skipped] == [(number, 1, number)]


def test_half_stars_are_ratings(tmp_path: Path) -> None:
    data = read_movielens(write(tmp_path, ratings="3::7::3.5::978300760\n"), MalformedLines())
    assert data.rating.tolist() == [3.5]


def test_a_title_may_have_the_separator(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("5::Alien :: Resurrection (1997)::Sci-Fi\n")
    (film,) = read_film_file(tmp_path / "movies.dat", MalformedLines())
    assert (film.id, film.title, film.genres) == (5, "Alien :: Resurrection (1997)", ("Sci-Fi",))
    assert isinstance(film, Film)


def test_a_missing_file_an_empty_one_and_damaged_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no users\.dat, plain, \.xz, \.gz or \.zip"):
        read_movielens(tmp_path, MalformedLines())
    with pytest.raises(DataError, match=r"nowhere.*cannot be read \(No such file"):
        read_movielens(tmp_path / "nowhere", MalformedLines())
    with pytest.raises(DataError, match=r"ratings\.dat: no line can be used"):
        read_movielens(write(tmp_path, ratings=""), MalformedLines())
    with pytest.raises(DataError, match=r"movies\.dat: no line can be used"):
        read_movielens(write(tmp_path, movies="\n"), MalformedLines())
    (tmp_path / "users.dat").unlink()
    (tmp_path / "users.dat.xz").write_bytes(lzma.compress(b"1::F::1::10::48067\n" * 100)[:-20])
    with pytest.raises(DataError, match=r"users\.dat\.xz: cannot be read"):
        read_movielens(tmp_path, MalformedLines())
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("users.csv", "1")
    with pytest.raises(DataError, match=r"the archive has 0 files users\.dat"):
        read_movielens(tmp_path / "other.zip", MalformedLines())
