"""Everything that a run needs to resume exactly where it stopped, in one file."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ConfigError, InputError
from model.training.optimizer import State

#: Settings that may differ when a run is resumed: they affect paths, or when the run ends, but not the steps.
#: Data are compared by their fingerprint, not by their paths.
MAY_CHANGE = ("output.", "training.max_seconds", "data.paths", "data.valid_paths", "data.order")
#: Name of the array that contains the position, the configuration and the data's fingerprint, as JSON.
_DESCRIPTION = "checkpoint"


class CheckpointError(InputError):
    """A checkpoint that cannot be read, written or resumed. The message names the remedy."""


@dataclass
class EpochTally:
    """Sums over the steps of one epoch so far.

    Attributes:
        loss: sum over the steps. seconds: time of the steps; waited: the part of it that was spent waiting for data.
    """

    steps: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass
class Position:
    """Progress of a run.

    Attributes:
        step: number of finished steps. seconds: time since the start, including measuring and saving.
        first_loss: loss of the first step; recent_loss: running mean.
        best, best_epoch: highest recall so far, and its epoch; None and 0 before the first measurement.
    """

    step: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    recent_loss: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    tally: EpochTally = field(default_factory=EpochTally)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Position and state of a run, with the configuration and data that must be the same when it is resumed.

    Attributes:
        position: progress of the run. state: state of the `Learner`.
        config: resolved configuration as JSON values. data: fingerprint of the data.
    """

    position: Position
    state: State
    config: Mapping[str, Any]
    data: str

    def write(self, path: Path, *copies: Path) -> None:
        """Replace `copies`, then `path`, each atomically: if the process dies, each has its old or its new content.

        Raises:
            CheckpointError: the files cannot be written.
        """
        draft = path.with_name(f".{path.name}.draft")
        description = {"position": asdict(self.position), "config": self.config, "data": self.data}
        try:
            draft.unlink(missing_ok=True)  # it may be a hard link to a checkpoint, if a process died here
            with draft.open("wb") as file:
                np.savez(file, **{_DESCRIPTION: np.array(json.dumps(description))}, **self.state)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            for copy in copies:
                twin = copy.with_name(f".{copy.name}.draft")
                twin.unlink(missing_ok=True)
                _duplicate(draft, twin)
                twin.replace(copy)
            draft.replace(path)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be written ({error.strerror}); free some space, then --resume"
            ) from None

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged, or of another version.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                state = dict(stored)
            description = json.loads(str(state.pop(_DESCRIPTION)))
            position = description["position"]
            position = Position(**{**position, "tally": EpochTally(**position["tally"])})
            return cls(position, state, description["config"], description["data"])
        except OSError as error:
            remedy = "check the folder given with --resume; a run has a checkpoint after its first epoch"
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: not a checkpoint of this version ({error!r}); train again") from None

    def check(self, config: Mapping[str, Any], data: str) -> None:
        """Check that a run with this configuration and data can be resumed from here.

        Raises:
            ConfigError: settings differ that affect the steps. CheckpointError: the data differ.
        """
        then, now = _leaves(self.config), _leaves(config)
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)]
        if changed:
            was = ", ".join(f"{key} was {json.dumps(then.get(key))}" for key in changed)
            raise ConfigError(f"a run can only be resumed with the settings of its start: {was}; start a new run")
        if data != self.data:
            remedy = "give the files that it was started with (--data), or start a new run"
            raise CheckpointError(f"the click files contain other data than when this run was started; {remedy}")


def _duplicate(source: Path, target: Path) -> None:
    """Link a file to a second name, or copy it where the file system has no links: copying a table takes long."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: `{"a": {"b": 1}}` → `{"a.b": 1}`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
