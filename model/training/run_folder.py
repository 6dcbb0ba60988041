"""The folder that a training run writes; `model.evaluation.runs` reads it.

RUN/config.yaml      the resolved configuration
RUN/metrics.jsonl    one JSON object for each epoch
RUN/training.png     loss and recall
RUN/last.npz         checkpoint to resume from; RUN/best.npz: the one with the highest recall
RUN/epochs/0005/     the artifact after epoch 5, with output.keep_epochs
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from configs.schema import TrainConfig
from model.training.checkpoint import Checkpoint, CheckpointError, Position
from model.training.optimizer import State

CONFIG, METRICS, PLOT, LAST, BEST = "config.yaml", "metrics.jsonl", "training.png", "last.npz", "best.npz"


def new_path(config: TrainConfig) -> Path:
    """Return a folder for a new run, named by UTC time and seed; further runs of the same second are numbered."""
    path = config.output.runs / f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-seed{config.training.seed}"
    numbered = (path.with_name(f"{path.name}-{n}") for n in count(2))
    return next(candidate for candidate in chain([path], numbered) if not candidate.exists())


class RunFolder:
    """The folder of a run, for the process that writes it.

    Attributes:
        saved_step: step of the last checkpoint; 0 = none yet.
    """

    def __init__(self, path: Path, config: TrainConfig, data: str) -> None:
        """
        Args:
            data: fingerprint of the data, for the checkpoints.
        """
        self.path = path
        self.saved_step = 0
        self._config, self._data = config.model_dump(mode="json"), data

    def create(self) -> None:
        """Create the folder of a new run.

        Raises:
            CheckpointError: the folder already holds a run, or cannot be created.
        """
        if (self.path / CONFIG).exists():
            raise CheckpointError(f"{self.path}: holds a run; resume it (--resume), or choose another folder (--run)")
        self._write_config()

    def resume(self, position: Position, epochs: int) -> None:
        """Resume at `position`, and remove the metrics of all but the first `epochs` epochs."""
        self.saved_step = position.step
        self._write_config()
        kept = "".join(json.dumps(line) + "\n" for line in self.metrics() if line["epoch"] <= epochs)
        draft = self.path / f".{METRICS}.draft"
        draft.write_text(kept, encoding="utf-8")
        draft.replace(self.path / METRICS)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of each epoch so far; an incomplete last line is ignored."""
        path = self.path / METRICS
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append the metrics of an epoch."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save(self, position: Position, state: State, *, best: bool = False) -> None:
        """Write a checkpoint to best.npz, if it is the best so far, and then to last.npz.

        Raises:
            CheckpointError: the files cannot be written; for example, the disk is full.
        """
        checkpoint = Checkpoint(position, state, self._config, self._data)
        checkpoint.write(self.path / LAST, *([self.path / BEST] if best else []))
        self.saved_step = position.step

    def plot(self) -> None:
        """Plot the metrics, if there are any."""
        from model.training.plots import plot_training  # matplotlib takes a second to load

        if lines := self.metrics():
            plot_training(lines, self.path / PLOT)

    def resume_command(self, processes: int) -> str:
        """Return the shell command that resumes this run."""
        program = "-m model.train"
        if processes > 1:
            program = f"-m paddle.distributed.launch --nproc_per_node {processes} model/train.py"
        return f"python {program} --resume {shlex.quote(str(self.path))}"

    def _write_config(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
            (self.path / CONFIG).write_text(f"# Resolved settings of this run.\n{text}", encoding="utf-8")
        except OSError as error:
            remedy = "choose another folder (--run, or output.runs for all runs)"
            raise CheckpointError(f"{self.path}: cannot be written ({error.strerror}); {remedy}") from None
