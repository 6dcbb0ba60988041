"""Processes that train together."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from model.artifact import Artifact
from tests.unit.model.small_runs import lines_of, small_run, started, succeed


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """The batch size is odd, so that the shares of the two processes differ."""
    settings = ("training.epochs=2", "training.batch_size=33", "data.valid_fraction=0.25")
    succeed([*small_run(tmp_path, *settings), "--run", str(tmp_path / "one")])
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", f"--log_dir={tmp_path / 'log'}"]
    command = [*launcher, "model/train.py", *small_run(tmp_path, *settings), "--run", str(tmp_path / "two")]
    with started(command) as run:
        output, errors = run.communicate(timeout=200)
    assert run.returncode == 0, output + errors
    assert "cpu, 2 processes" in output + errors
    one, two = lines_of(tmp_path / "one"), lines_of(tmp_path / "two")
    assert len(one) == len(two) == 2
    for single, together in zip(one, two, strict=True):
        assert together == pytest.approx(single, rel=1e-4)
    assert Artifact.load(tmp_path / "artifact").manifest["users"] == 30
