"""`producers.ratings` writes files that the reader of MovieLens reads back."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from configs.errors import EXIT_FAILURE
from model.data.malformed import MalformedLines
from model.fusion.movielens import read_movielens
from producers.ratings import main
from producers.synthetic_ratings import RatingsShape, generate_ratings

OPTIONS = ["--users", "30", "--films", "40", "--ratings", "500", "--seed", "5"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*OPTIONS, "--out", str(tmp_path / "ml")])
    assert result.exit_code == 0, result.output
    assert "500 ratings of 40 films by 30 users" in result.output
    read, made = read_movielens(tmp_path / "ml", MalformedLines()), generate_ratings(RatingsShape(30, 40, 500), 5)[0]
    for name in ("user_ids", "user", "film", "rating", "time"):
        assert getattr(read, name).tolist() == getattr(made, name).tolist(), name
    assert read.profiles == made.profiles
    assert [(film.id, film.title, film.genres) for film in read.films] == [
        (film.id, film.title, film.genres) for film in made.films
    ]


def test_titles_are_latin_1(tmp_path: Path) -> None:
    CliRunner().invoke(main, [*OPTIONS, "--out", str(tmp_path)])
    text = (tmp_path / "movies.dat").read_bytes()
    assert any(word.encode("latin-1") in text for word in ("Fée", "Café", "Señora", "Opéra"))


def test_impossible_sizes_and_folders_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--users", "5", "--films", "5", "--ratings", "100", "--out", str(tmp_path)])
    assert result.exit_code == EXIT_FAILURE and "use fewer ratings" in result.output
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, [*OPTIONS, "--out", str(tmp_path / "file")])
    assert result.exit_code == EXIT_FAILURE and "cannot be written" in result.output
