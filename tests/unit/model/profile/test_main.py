"""`model.profile`: from profiles and clicks to a tower in the folder of the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.errors import EXIT_CONFIG, EXIT_FAILURE, EXIT_INTERRUPTED
from model.artifact import Artifact
from model.profile.__main__ import main
from model.profile.evaluate import main as evaluate
from model.serving.profile import ProfileTower
from tests.unit.model.profile.small import artifact, options, users, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> Artifact:
    model = artifact(tmp_path_factory.mktemp("model") / "artifact")
    result = run(files, model)
    assert result.exit_code == 0, result.output
    assert "400 users, 100 valid users; values of attributes: region 4, age 4, topics 3" in result.output
    assert "of valid users without clicks" in result.output and "a profile counts as" in result.output
    return model


def run(files: dict[str, Path], model: Artifact, *more: str) -> Result:
    return CliRunner().invoke(main, [*options(files, model), *more])


def test_the_tower_beats_popular_items_where_attributes_decide(trained: Artifact, files: dict[str, Path]) -> None:
    arguments = [*options(files, trained), "--test", str(files["test"]), "--json"]
    result = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    cold = figures["cold"]
    assert cold["profile"]["recall"]["mean"] > 0.5
    for name in ("popular, all clicks", "popular by region and age, first 10 clicks"):
        assert cold[name]["more_recall"]["low"] > 0, name
    after_one = figures["early"]["1"]
    assert after_one["blend"]["recall"]["mean"] > after_one["interests"]["recall"]["mean"]
    assert figures["weights"]["1"] > figures["weights"]["10"] > 0
    assert figures["model_version"] == trained.model_version


def test_the_tables_name_the_methods(trained: Artifact, files: dict[str, Path]) -> None:
    result = CliRunner().invoke(evaluate, [*options(files, trained), "--test", str(files["test"]), "--group", "region"])
    assert result.exit_code == 0, result.output
    for text in ("popular by region", "after 3 clicks", "interests", "blend"):
        assert text in result.output


def test_a_list_makes_no_groups(trained: Artifact, files: dict[str, Path]) -> None:
    result = CliRunner().invoke(evaluate, [*options(files, trained), "--test", str(files["test"]), "--group", "topics"])
    assert result.exit_code == EXIT_CONFIG
    assert "--group topics" in result.output and "region, age" in result.output


def test_the_model_stays_as_it_was(trained: Artifact) -> None:
    assert Artifact.load(trained.path).model_version == trained.model_version


def test_the_same_seed_gives_the_same_tower(trained: Artifact, files: dict[str, Path], tmp_path: Path) -> None:
    again = artifact(tmp_path / "artifact")
    assert run(files, again).exit_code == 0
    first, second = (ProfileTower.load(one) for one in (trained, again))
    assert first.manifest["model_version"] == second.manifest["model_version"]


@pytest.mark.parametrize("setting", ["network.hidden=8", "loss.negatives=64", "loss.temperature=0.2"])
def test_other_towers_learn_the_tastes_too(files: dict[str, Path], tmp_path: Path, setting: str) -> None:
    model = artifact(tmp_path / "artifact")
    result = run(files, model, "--set", setting, "--set", "training.epochs=20")
    assert result.exit_code == 0, result.output
    assert ProfileTower.load(model).manifest["metrics"]["recall@50"] > 0.5


def test_vectors_of_a_model_with_free_lengths_are_not_normalised(files: dict[str, Path], tmp_path: Path) -> None:
    model = artifact(tmp_path / "artifact", normalise=False)
    result = run(files, model, "--set", "loss.temperature=0.2")
    assert result.exit_code == 0, result.output
    lengths = np.linalg.norm(ProfileTower.load(model).vectors(users(50, 1, 1)[0]), axis=1)
    assert np.ptp(lengths) > 1e-3
    assert ProfileTower.load(model).manifest["metrics"]["recall@50"] > 0.5


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("data: {attributes: [{name: age, kind: numbr}]}", ["wrong.yaml: 'data.attributes.0.kind'", "'number'"]),
        ("data: {attributes: [{name: age, kind: number}]}", ["wrong.yaml", "age: kind number needs bins"]),
        ("data: {attributes: [{name: age, kind: category, bins: 3}]}", ["wrong.yaml", "no other kind does"]),
        ("data: {attributes: [{name: age, kind: number, bins: [3, 1]}]}", ["wrong.yaml", "ascend"]),
        ("data: {attributes: [{name: a, kind: category}, {name: a, kind: category}]}", ["named twice in a, a"]),
        ("data: {atributes: []}", ["wrong.yaml", "did you mean 'data.attributes'?"]),
        ("{}", ["data.attributes: no attributes", "configs/profile-movielens.yaml"]),
    ],
)
def test_wrong_settings_name_file_key_and_remedy(
    files: dict[str, Path], tmp_path: Path, text: str, needles: list[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    result = run(files | {"config": tmp_path / "wrong.yaml"}, artifact(tmp_path / "artifact"))
    assert result.exit_code == EXIT_CONFIG, result.output
    for needle in needles:
        assert needle in result.output


def test_without_clicks_or_profiles_the_message_names_the_option(files: dict[str, Path], tmp_path: Path) -> None:
    model = artifact(tmp_path / "artifact")
    result = run(files, model, "--set", "data.clicks=[]")
    assert result.exit_code == 0, "the option comes after --set"
    common = ["-c", str(files["config"]), "--artifact", str(model.path)]
    result = CliRunner().invoke(main, [*common, "--profiles", str(files["profiles"])])
    assert result.exit_code == EXIT_CONFIG and "--clicks FILE" in result.output
    result = CliRunner().invoke(main, [*common, "--clicks", str(files["train"])])
    assert result.exit_code == EXIT_FAILURE and "no profiles" in result.output and "--profiles" in result.output


def test_a_stopped_run_writes_no_tower(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.profile.__main__.fit", stopped)
    model = artifact(tmp_path / "artifact")
    result = run(files, model)
    assert result.exit_code == EXIT_INTERRUPTED and "no tower was written" in result.output
    assert not (model.path / "profile").exists()
