"""`model.fusion.movies`: films as numbers of a model."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from configs.errors import EXIT_FAILURE
from model.fusion.film_list import read_films
from model.fusion.movies import main
from tests.unit.model.fusion.small import ratings, saved


def test_films_are_written_for_the_model(tmp_path: Path) -> None:
    artifact = saved(tmp_path / "fusion")
    films = [f"{film.id}::{film.title}::{'|'.join(film.genres)}" for film in ratings()[0].films]
    (tmp_path / "movies_origin.txt").write_text("\n".join([*films, "900::Señora Waltz (2024)::Drama"]), "latin-1")
    out = tmp_path / "movies_data.txt"
    options = ["-f", str(tmp_path / "movies_origin.txt"), "--artifact", str(artifact.path), "--out", str(out)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert f"{out}: 121 films, 1 of them not in training" in result.output
    assert f"the vocabulary of model {artifact.model_version}" in result.output
    assert read_films(out, artifact.vocabulary).titles[900] == "Señora Waltz (2024)"


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    artifact = saved(tmp_path / "fusion")
    (tmp_path / "movies.txt").write_text("1::Toy Story (1995)::Comedy\n2::Jumanji\n")
    options = ["-f", str(tmp_path / "movies.txt"), "--artifact", str(artifact.path), "--out", str(tmp_path / "out.txt")]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == EXIT_FAILURE
    assert f"{tmp_path / 'movies.txt'}, line 2: expected MovieID::Title::Genre|Genre" in result.output
    assert not (tmp_path / "out.txt").exists()
