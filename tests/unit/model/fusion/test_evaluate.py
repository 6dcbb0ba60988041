"""`model.fusion.evaluate` measures all splits, as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from configs.errors import EXIT_CONFIG
from model.fusion.evaluate import main
from producers.ratings import write_movielens
from tests.unit.model.fusion.small import SMALL, ratings


@pytest.fixture(autouse=True)
def _one_factorisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.fusion.baselines.FACTORS", (3,))
    monkeypatch.setattr("model.fusion.baselines.PENALTIES", (0.1,))


def run(tmp_path: Path, *options: str) -> Result:
    write_movielens(ratings()[0], tmp_path / "data")
    settings = [word for one in SMALL for word in ("--set", one)]
    return CliRunner().invoke(main, [*settings, "--data", str(tmp_path / "data"), *options])


def test_every_split_has_its_figures(tmp_path: Path) -> None:
    result = run(tmp_path, "--json", "--seeds", "2")
    assert result.exit_code == 0, result.output
    splits = {one["split"]: one for one in json.loads(result.stdout)}
    assert list(splits) == ["random", "time", "user"]
    methods = ["global mean", "item mean", "matrix factorisation", "fusion"]
    for one in splits.values():
        for group, errors in one["errors"].items():
            assert list(errors["rmse"]) == list(errors["mae"]) == methods
            assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in errors["rmse"].values())
            assert len(one["rmse_by_seed"][group]) == 2
        assert len(one["seconds"]) == 2
    for name in ("time", "user"):  # new users: only the fusion model has something to say about them
        more = splits[name]["errors"]["new users"]["more"]
        assert more["matrix factorisation"]["low"] > 0 and more["item mean"]["low"] > 0
    assert list(splits["user"]["recall"]["recall"]) == ["popular", "popular in the group", "fusion"]
    assert splits["random"]["recall"] is None


def test_tables_name_the_split_the_methods_and_the_seeds(tmp_path: Path) -> None:
    result = run(tmp_path, "--split", "user", "--set", "training.epochs=1")
    assert result.exit_code == 0, result.output
    for text in ("user, new users:", "matrix factorisation", "RMSE of fusion by seed: ", "recall@50", "popular in the"):
        assert text in result.stdout, result.stdout


def test_without_data_it_ends_with_78() -> None:
    assert CliRunner().invoke(main, []).exit_code == EXIT_CONFIG
