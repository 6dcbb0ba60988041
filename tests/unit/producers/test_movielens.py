"""`producers.movielens` writes clicks and profiles that training reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from configs.errors import EXIT_FAILURE
from model.data.clicks import read_clicks
from producers.movielens import main

USERS = "1::F::1::10::0\n2::M::56::16::0\n3::M::25::15::0\n4::F::35::0::0\n"
FILMS = "10::A (1990)::Drama\n20::B (1991)::Comedy\n"
RATINGS = "1::10::5::300\n1::20::4::200\n2::20::3::100\n3::10::4::100\n3::20::5::100\n4::20::4::1\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    for name, text in (("users", USERS), ("movies", FILMS), ("ratings", RATINGS)):
        (folder / f"{name}.dat").write_text(text)
    return folder


def run(data: Path, out: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["--data", str(data), "--out", str(out), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_liked_films_are_clicks_in_the_order_of_time_and_file(data: Path, tmp_path: Path) -> None:
    output = run(data, tmp_path / "out")
    assert (tmp_path / "out" / "clicks.csv").read_text() == "1,20,0\n1,10,1\n3,10,0\n3,20,1\n4,20,0\n"
    assert "5 clicks of 4 users" in output
    lines = (tmp_path / "out" / "profiles.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"user_id": 2, "gender": "male", "age": "56+", "occupation": "self-employed"}
    assert len(lines) == 4


def test_all_ratings_may_be_clicks(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, "--liked", "0")
    assert read_clicks([tmp_path / "clicks.csv"]).users.tolist() == [1, 2, 3, 4]


def test_users_are_divided_by_the_seed(data: Path, tmp_path: Path) -> None:
    def files(name: str, seed: int) -> list[str]:
        run(data, tmp_path / name, "--liked", "0", "--held-out", "0.25", "--seed", str(seed))
        return [(tmp_path / name / f"{part}.csv").read_text() for part in ("train", "valid", "test")]

    first = files("a", 1)
    users = [{line.split(",")[0] for line in text.split()} for text in first]
    assert [len(one) for one in users] == [2, 1, 1]
    assert set().union(*users) == {"1", "2", "3", "4"}
    assert files("b", 1) == first
    assert any(files("c", seed) != first for seed in range(2, 9))
    assert not (tmp_path / "a" / "clicks.csv").exists()


def test_files_that_cannot_be_read_or_written_are_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (["--data", str(tmp_path), "--out", "x"], ["--data", str(data), "--out", str(tmp_path / "file")]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == EXIT_FAILURE and str(tmp_path) in result.output
