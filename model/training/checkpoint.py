"""All that a run needs to go on exactly where it was, in one file."""

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

#: Settings that may differ when a run goes on: they change where things are, or when it ends, but no step. Whether
#: the data are the same is seen in the data themselves.
MAY_CHANGE = ("output.", "training.max_seconds", "data.paths", "data.valid_paths")
#: ItemName of the description among the arrays.
_ABOUT = "checkpoint"


class CheckpointError(InputError):
    """A checkpoint that cannot be read, written or gone on from. The message says what mends it."""


@dataclass
class EpochTally:
    """Of the steps of one epoch.

    Attributes:
        loss: sum over the steps. seconds: spent in them; waited: the part of it that the data took.
    """

    steps: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass
class Position:
    """How far a run is.

    Attributes:
        step: steps done. seconds: since the start, measuring and saving included.
        first_loss, recent_loss: of the first step; running mean.
        best, best_epoch: highest recall so far, and the epoch that had it; None, 0 = nothing measured yet.
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
    """Attributes:
    position: where the run was. state: of the `Learner`.
    config: resolved configuration, as JSON has it. data: fingerprint of the data.
    """

    position: Position
    state: State
    config: Mapping[str, Any]
    data: str

    def write(self, path: Path, *copies: Path) -> None:
        """Replaces `copies`, then `path`: each has either its old content or the new one, whenever the process dies.

        Raises:
            CheckpointError: the files cannot be written.
        """
        draft = path.with_name(f".{path.name}.draft")
        about = {"position": asdict(self.position), "config": self.config, "data": self.data}
        try:
            draft.unlink(missing_ok=True)  # it may be a second name of a checkpoint, if a process died here
            with draft.open("wb") as file:
                np.savez(file, **{_ABOUT: np.array(json.dumps(about))}, **self.state)  # type: ignore[arg-type]
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
        """
        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                state = dict(stored)
            about = json.loads(str(state.pop(_ABOUT)))
            position = about["position"]
            position = Position(**{**position, "tally": EpochTally(**position["tally"])})
            return cls(position, state, about["config"], about["data"])
        except OSError as error:
            remedy = "check the folder given with --resume; a run has a checkpoint after its first epoch"
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: no checkpoint of this version ({error!r}); train again") from None

    def check(self, config: Mapping[str, Any], data: str) -> None:
        """
        Raises:
            ConfigError: settings differ that decide the steps. CheckpointError: the data differ.
        """
        then, now = _leaves(self.config), _leaves(config)
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)]
        if changed:
            was = ", ".join(f"{key} was {json.dumps(then.get(key))}" for key in changed)
            raise ConfigError(f"a run goes on with the settings that it was started with: {was}; start a new run")
        if data != self.data:
            remedy = "give the files that it was started with (--data), or start a new run"
            raise CheckpointError(f"the click files hold other data than when this run was started; {remedy}")


def _duplicate(source: Path, target: Path) -> None:
    """A second name where the file system has that; a whole table takes its time to copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
