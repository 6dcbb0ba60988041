"""The training command, end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.errors import EXIT_CONFIG, EXIT_FAILURE
from configs.loader import load_train
from model.artifact import Artifact
from model.evaluation.runs import kept_epochs, seconds_by_epoch
from model.train import main
from tests.unit.model.small_runs import ROOT, lines_of, small_run, succeed


def test_the_model_depends_on_the_seed_and_is_reproducible(tmp_path: Path) -> None:
    versions: list[str] = []
    for seed in (1, 1, 2):
        succeed(small_run(tmp_path, f"training.seed={seed}", f"output.runs={tmp_path / str(len(versions))}"))
        versions.append(Artifact.load(tmp_path / "artifact").model_version)
    assert versions[0] == versions[1] != versions[2]


def test_runs_that_begin_in_the_same_second_have_different_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr("model.training.run_folder.datetime", Clock)
    with CliRunner().isolated_filesystem():
        arguments = small_run(Path(), "output.runs=runs")
        for _ in range(3):
            succeed(arguments)
        assert {path.name for path in Path("runs").iterdir()} == {
            "20260102-030405-seed1",
            "20260102-030405-seed1-2",
            "20260102-030405-seed1-3",
        }


@pytest.mark.parametrize("command", [["-m", "model.train"], ["model/train.py"]])
def test_both_ways_to_start_write_an_artifact_and_report_it(tmp_path: Path, command: list[str]) -> None:
    arguments = [*command, "-c", "configs/mind.yaml", *small_run(tmp_path, "data.valid_fraction=0.25")]
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    artifact = Artifact.load(tmp_path / "artifact")
    assert "600 clicks of 30 users on " in run.stdout
    assert "epoch 1/1  loss " in run.stdout
    assert "10 held-out users: recall@50 " in " ".join(run.stdout.split())
    assert f"model {artifact.model_version}: {len(artifact.item_ids)} items" in run.stdout
    assert artifact.manifest["users"] == 30
    assert artifact.manifest["clicks"] == artifact.item_counts.sum() == 600
    assert artifact.manifest["config"]["training"]["epoch_steps"] == 5
    assert 0 < artifact.manifest["metrics"]["recall@50"] <= 1
    assert np.linalg.norm(artifact.item_vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_valid_users_are_read_in_either_format(tmp_path: Path) -> None:
    other = tmp_path / "valid"
    for text in ("user_id:1 target_item:0 hist_item:1000 hist_item:7 eval_item:1001\n", "9,1000,1\n9,1001,2\n"):
        other.write_text(text, encoding="utf-8")
        run = ["--run", str(tmp_path / str(len(text)))]
        output = succeed([*small_run(tmp_path, f"data.valid_paths=[{other}]"), *run])
        assert "800 clicks of 40 users" in output
        assert "1 held-out user:" in output


def test_a_run_ends_at_its_time_limit(tmp_path: Path) -> None:
    assert "epoch 1/1 loss" in succeed(small_run(tmp_path, "training.epoch_steps=1000000", "training.max_seconds=1"))


def test_the_run_folder_has_configuration_metrics_checkpoints_and_epochs(tmp_path: Path) -> None:
    kept = ("output.keep_epochs=true", "training.epochs=3", "data.valid_fraction=0.25")
    run = tmp_path / "run"
    output = succeed([*small_run(tmp_path, *kept), "--run", str(run)])
    artifact = Artifact.load(tmp_path / "artifact")
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.jsonl", "training.png", "last.npz", "best.npz", "epochs",
    }  # fmt: skip
    assert load_train(run / "config.yaml", (), {}).model_dump(mode="json") == artifact.manifest["config"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 5), (2, 10), (3, 15)]
    for line in lines:
        assert 0 < line["loss"] < 20
        assert 0 <= line["recall@50"] <= line["hit_rate@50"] <= 1
        assert -1 <= line["interest_cosine"] <= 1
        assert line["samples_per_second"] > 0
        assert 0 <= line["data_share"] < 1
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
    assert f"epoch 3/3 loss {lines[2]['loss']:.4f} recall@50 {lines[2]['recall@50']:.4f}" in output
    assert "of the time waiting for data" in output
    # `model.evaluate --run` reads the folder, and the artifact is that of the best epoch.
    assert set(seconds_by_epoch(run)) == {1, 2, 3}
    epochs = {epoch: Artifact.load(path) for epoch, path in kept_epochs(run, None)}
    best = max(lines, key=lambda line: (line["recall@50"], -line["epoch"]))["epoch"]
    assert f"Best epoch: {best}" in output
    assert epochs[best].model_version == artifact.model_version
    assert len({one.model_version for one in epochs.values()}) == 3
    assert artifact.manifest["metrics"]["recall@50"] == pytest.approx(lines[best - 1]["recall@50"])


def test_the_artifact_is_that_of_the_best_epoch_not_of_the_last(tmp_path: Path) -> None:
    """The learning rate is harmful after the first epochs: recall falls, and patience ends the run."""
    harmful = ["training.epochs=50", "training.epoch_steps=20", "training.patience=2", "training.decay=none"]
    harmful += ["data.valid_fraction=0.5", "training.learning_rate=0.2", "output.keep_epochs=true", "network.dim=2"]
    output = succeed([*small_run(tmp_path, *harmful), "--run", str(tmp_path / "run")])
    recalls = [line["recall@50"] for line in lines_of(tmp_path / "run")]
    best = recalls.index(max(recalls)) + 1
    assert best == len(recalls) - 2
    assert f"Stopped early after epoch {best + 2}: recall@50 has not risen for 2 epochs" in output
    served = Artifact.load(tmp_path / "artifact").model_version
    assert served == Artifact.load(tmp_path / "run" / "epochs" / f"{best:04}").model_version


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow before divergence is detected
def test_a_run_that_diverges_is_explained_and_writes_no_artifact(tmp_path: Path) -> None:
    diverging = ("training.learning_rate=1e30", "network.normalise=false")
    result = CliRunner().invoke(main, small_run(tmp_path, *diverging), catch_exceptions=False)
    assert result.exit_code == 1
    explained = " ".join(result.output.split())
    assert "training diverged at step" in explained
    assert "Lower training.learning_rate (now 1e+30)" in explained
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(
    ("overrides", "status", "complaint"),
    [
        (["--set", "training.epochz=5"], EXIT_CONFIG, "did you mean 'training.epochs'?"),
        (["--set", "training.precision=bfloat16"], EXIT_CONFIG, "needs a GPU"),
        (["--run", "{here}"], EXIT_FAILURE, "resume it (--resume), or choose another folder (--run)"),
        (["--data", "missing.txt"], EXIT_FAILURE, "missing.txt: cannot be read"),
        (["--out", "model"], EXIT_FAILURE, "is not an artifact, and is not replaced"),
        (["--set", "training.shortest_history=50"], EXIT_FAILURE, "lower training.shortest_history"),
        (["--set", "training.batch_size=10000000000000"], EXIT_CONFIG, "lower training.batch_size, loss.negatives"),
    ],
)
def test_settings_and_files_that_cannot_work_are_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], status: int, complaint: str
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "config.yaml").touch()  # as if a run had been started here
    given = [part.format(here=tmp_path) for part in overrides]
    result = CliRunner().invoke(main, [*small_run(tmp_path), *given], catch_exceptions=False)
    assert result.exit_code == status
    assert complaint in " ".join(result.output.split())
    assert not (tmp_path / "artifact").exists()


def test_skipped_lines_are_reported_by_file_and_recorded(tmp_path: Path) -> None:
    arguments = small_run(tmp_path, "data.malformed=skip")
    with (tmp_path / "clicks.csv").open("a") as file:
        file.write("bad line\nworse line\n")
    output = succeed(arguments)
    assert "clicks.csv: 2 of 802 lines skipped; the first is line 801: expected uid,item_id,order" in output
    (skipped,) = Artifact.load(tmp_path / "artifact").manifest["skipped"]
    assert (skipped["lines"], skipped["skipped"], skipped["first"]) == (802, 2, 801)
