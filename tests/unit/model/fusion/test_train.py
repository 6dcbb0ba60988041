"""`model.fusion.train`: from files to an artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from configs.errors import EXIT_CONFIG, EXIT_FAILURE, EXIT_INTERRUPTED
from model.fusion.artifact import FusionArtifact
from model.fusion.train import main
from producers.ratings import write_movielens
from tests.unit.model.fusion.small import SMALL, ratings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_movielens(ratings()[0], tmp_path / "data")
    return tmp_path / "data"


def run(folder: Path, *options: str) -> Result:
    settings = [word for one in (*SMALL, "training.epochs=2") for word in ("--set", one)]
    return CliRunner().invoke(main, [*settings, "--out", str(folder / "fusion"), *options])


def test_a_run_ends_with_an_artifact_and_its_error_on_held_out_ratings(tmp_path: Path, data: Path) -> None:
    result = run(tmp_path, "--data", str(data))
    assert result.exit_code == 0, result.output
    assert "16,000 ratings of 120 films by 400 users" in result.output
    assert "epoch 2/2" in result.output and "rmse" in result.output
    artifact = FusionArtifact.load(tmp_path / "fusion")
    assert f"model {artifact.model_version}: 120 films" in result.output
    assert 0 < artifact.manifest["metrics"]["rmse"] < 1.2
    assert artifact.manifest["config"]["network"]["dim"] == artifact.dim == 16
    assert artifact.manifest["ratings"] == pytest.approx(0.98 * 16_000, rel=0.01)


def test_malformed_lines_are_left_out_and_recorded(tmp_path: Path, data: Path) -> None:
    with (data / "ratings.dat").open("a") as file:
        file.write("1::1::9::978300760\n")
    result = run(tmp_path, "--data", str(data))
    assert result.exit_code == EXIT_FAILURE
    assert f"{data / 'ratings.dat'}, line 16001: a rating is a number from 0.5 to 5" in result.output
    result = run(tmp_path, "--data", str(data), "--set", "data.malformed=skip", "--set", "data.valid_fraction=0")
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "fusion" / "manifest.json").read_text())
    assert [(one["skipped"], one["first"]) for one in manifest["skipped"]] == [(1, 16001)]
    assert manifest["metrics"] == {}


def test_without_data_the_message_names_both_ways_to_get_some(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == EXIT_CONFIG
    assert "--data DIR" in result.output and "python -m producers.ratings --out DIR" in result.output


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path, data: Path) -> None:
    (tmp_path / "fusion").mkdir()
    (tmp_path / "fusion" / "thesis.txt").touch()
    result = run(tmp_path, "--data", str(data))
    assert result.exit_code == EXIT_FAILURE
    assert "exists, is not an artifact" in result.output


def test_a_stopped_run_writes_no_artifact(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.fusion.train.fit", stopped)
    result = run(tmp_path, "--data", str(data))
    assert result.exit_code == EXIT_INTERRUPTED
    assert "Stopped; no artifact was written." in result.output
    assert not (tmp_path / "fusion").exists()
