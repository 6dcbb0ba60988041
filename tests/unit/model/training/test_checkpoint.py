"""Checkpoints are written, read, and refused if they are unusable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.errors import ConfigError
from configs.loader import load_train
from configs.schema import TrainConfig
from model.training.checkpoint import Checkpoint, CheckpointError, Position
from model.training.run_folder import BEST, LAST


def config_of(*overrides: str) -> TrainConfig:
    return load_train(None, ["training.epochs=4", "training.epoch_steps=5", *overrides], {})


def checkpoint_of(config: TrainConfig) -> Checkpoint:
    position = Position(step=3, seconds=0.1 + 0.2, first_loss=1 / 3, best=0.7)
    return Checkpoint(position, {"w": np.arange(3)}, config.model_dump(mode="json"), "data")


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint_of(config_of())
    written.write(tmp_path / LAST, tmp_path / BEST)
    for path in (tmp_path / LAST, tmp_path / BEST):
        read = Checkpoint.read(path)
        assert (read.position, read.config, read.data) == (written.position, written.config, written.data)
        assert read.state.keys() == {"w"}
        assert (read.state["w"] == np.arange(3)).all()
    assert {path.name for path in tmp_path.iterdir()} == {LAST, BEST}


def test_a_new_checkpoint_does_not_change_the_best_one(tmp_path: Path) -> None:
    """Both names are links to the same file at first, and so is the draft if a process died while writing."""
    first = checkpoint_of(config_of())
    first.write(tmp_path / LAST, tmp_path / BEST)
    (tmp_path / f".{LAST}.draft").hardlink_to(tmp_path / BEST)
    dataclasses.replace(first, position=Position(step=9)).write(tmp_path / LAST)
    assert Checkpoint.read(tmp_path / LAST).position.step == 9
    assert Checkpoint.read(tmp_path / BEST).position.step == 3


def test_a_missing_or_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / LAST
    with pytest.raises(CheckpointError, match=r"last\.npz: cannot be read .* --resume"):
        Checkpoint.read(path)
    checkpoint_of(config_of()).write(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"last\.npz: not a checkpoint"):
        Checkpoint.read(path)
    np.savez(path, w=np.arange(3))
    with pytest.raises(CheckpointError, match=r"last\.npz: not a checkpoint"):
        Checkpoint.read(path)


def test_a_checkpoint_can_only_be_resumed_with_the_settings_and_data_of_its_run() -> None:
    checkpoint = checkpoint_of(config_of())
    elsewhere = config_of("output.folder=x", "output.keep_epochs=true", "training.max_seconds=9", "data.paths=[y]")
    checkpoint.check(elsewhere.model_dump(mode="json"), "data")
    changed = config_of("training.seed=2", "network.dim=7").model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"network\.dim was 64, training\.seed was 1"):
        checkpoint.check(changed, "data")
    with pytest.raises(CheckpointError, match="other data"):
        checkpoint.check(config_of().model_dump(mode="json"), "other")
