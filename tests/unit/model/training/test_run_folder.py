"""The folder of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import load_train
from configs.schema import TrainConfig
from model.training.checkpoint import CheckpointError, Position
from model.training.run_folder import RunFolder


def config_of(*overrides: str) -> TrainConfig:
    return load_train(None, ["training.epochs=4", "training.epoch_steps=5", *overrides], {})


def test_metrics_after_the_checkpoint_are_removed(tmp_path: Path) -> None:
    """A process may die after writing an epoch's line and before its checkpoint, or while writing the line."""
    config = config_of()
    run = RunFolder(tmp_path, config, "data")
    run.create()
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    run.resume(Position(step=10), 2)
    run.append_metrics({"epoch": 3, "again": True})
    assert run.metrics() == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "again": True}]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, config_of(), "data")
    run.create()
    with pytest.raises(CheckpointError, match=r"--resume.*--run"):
        run.create()
