"""Stopping and resuming the training command."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.errors import EXIT_CONFIG
from model.artifact import Artifact
from model.train import main
from tests.unit.model.small_runs import lines_of, small_run, started, succeed, wait_for

#: Settings of a run of some seconds, so that a signal arrives before its end.
LONG = ("training.epochs=30", "training.epoch_steps=5", "training.patience=null", "data.valid_fraction=0.5")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_is_resumed_and_ends_like_an_uninterrupted_one(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    succeed([*small_run(tmp_path, *LONG), "--run", str(whole)])
    expected = Artifact.load(tmp_path / "artifact").model_version
    shutil.rmtree(tmp_path / "artifact")

    with started(["-m", "model.train", *small_run(tmp_path, *LONG), "--run", str(interrupted)]) as run:
        wait_for((interrupted / "metrics.jsonl").exists, run)
        run.send_signal(number)
        output, errors = run.communicate(timeout=60)
    assert run.returncode == status, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "artifact").exists()
    stopped = re.search(r"Stopped at step (\d+); .* resume with: python (.*)", output)
    assert stopped is not None, output
    assert 5 <= int(stopped[1]) < 150
    assert (interrupted / "training.png").exists()

    assert shlex.split(stopped[2]) == ["-m", "model.train", "--resume", str(interrupted)]
    succeed(["--resume", str(interrupted)])
    assert lines_of(interrupted) == lines_of(whole)
    assert Artifact.load(tmp_path / "artifact").model_version == expected


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--set", "network.dim=9"], "network.dim was 8; start a new run"),
        (["--data", "{folder}/other.csv"], "other data than when this run was started"),
        (["-c", "configs/mind.yaml"], "--resume excludes -c"),
    ],
)
def test_a_run_can_only_be_resumed_with_the_settings_and_data_of_its_start(
    tmp_path: Path, change: list[str], complaint: str
) -> None:
    run = str(tmp_path / "run")
    succeed([*small_run(tmp_path), "--run", run])
    shutil.copy(tmp_path / "clicks.csv", tmp_path / "same.csv")
    (tmp_path / "other.csv").write_text((tmp_path / "clicks.csv").read_text() + "7,1000,99\n")
    arguments = [part.format(folder=tmp_path) for part in change]
    result = CliRunner().invoke(main, ["--resume", run, *arguments], catch_exceptions=False)
    assert result.exit_code != 0
    assert complaint in " ".join(result.output.split())
    # The same clicks from another file, and another artifact, are allowed: nothing is left to train.
    version = Artifact.load(tmp_path / "artifact").model_version
    succeed(["--resume", run, "--data", str(tmp_path / "same.csv"), "--out", str(tmp_path / "again")])
    assert Artifact.load(tmp_path / "again").model_version == version


def test_a_missing_run_cannot_be_resumed(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--resume", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == EXIT_CONFIG
    assert "config.yaml: cannot be read" in " ".join(result.output.split())
