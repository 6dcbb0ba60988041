"""The training loop: steps, epochs, checkpoints, and the conditions that end it."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from configs.errors import MindstreamError
from configs.schema import TrainConfig
from model.training.backend import paddle
from model.training.checkpoint import EpochTally, Position
from model.training.optimizer import State
from model.training.progress import TrainingProgress
from model.training.run_folder import RunFolder
from model.training.sampling import TrainingBatch
from model.training.signals import StopSignals
from model.training.team import Team

#: Length of the lists that are measured during training; the published figures have the same.
MEASURED_AT = 50
#: Metric that decides early stopping and the best epoch.
RECALL = f"recall@{MEASURED_AT}"
#: Batches drawn ahead of the step: enough that a slow draw does not delay training.
BATCHES_AHEAD = 3
#: Weight of the newest step in the running mean of the loss, which reflects about the last 50 steps.
SMOOTHING = 0.02
#: Training has diverged if the running mean of the loss exceeds this many times the loss of the first step, which is
#: that of an untrained network. In runs that work, the ratio stays below 1.
DIVERGED = 3.0

Metrics = Mapping[str, float]


class LearnerLike(Protocol):
    """Interface of a `Learner` that the loop uses."""

    def step(self, batch: TrainingBatch, rate: float) -> float:
        """Make one step with learning rate `rate`; return the loss before it."""
        ...

    def state(self) -> State:
        """Return what the learner needs to resume here."""
        ...


class DivergenceError(MindstreamError):
    """The loss is NaN or infinite, or far above that of an untrained network. The message says what to change."""


class Stopped(KeyboardInterrupt):
    """A signal ended the run; its checkpoint is written. `status` is the exit status of the process."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def draw_ahead(draw: Callable[[int], TrainingBatch], first: int) -> Generator[TrainingBatch, None, None]:
    """Yield the batches of steps `first`, `first` + 1, …, drawn ahead in another thread."""
    with ThreadPoolExecutor(1, "batches") as thread:
        drawn = deque(thread.submit(draw, step) for step in range(first, first + BATCHES_AHEAD))
        for step in itertools.count(first + BATCHES_AHEAD):
            batch = drawn.popleft().result()
            drawn.append(thread.submit(draw, step))
            yield batch


class Trainer:
    """One run of a learner.

    Attributes:
        position: progress of the run.
    """

    # Nine parameters: tests replace the loop's collaborators, and need no network, signals or other processes.
    def __init__(
        self,
        config: TrainConfig,
        learner: LearnerLike,
        draw: Callable[[int], TrainingBatch],
        *,
        position: Position,
        measure: Callable[[], Metrics],
        keep_epoch: Callable[[int, Metrics], object],
        folder: RunFolder | None,
        team: Team,
        stop: StopSignals,
    ) -> None:
        """
        Args:
            draw: step → batch. position: where the run starts; the run updates it.
            measure: returns the quality of the current weights, empty without users to measure on; called after each
                epoch if `folder` is given.
            keep_epoch: called with each epoch and its quality, also only if `folder` is given.
            folder: for metrics and checkpoints; None in processes that are not the leader.
        """
        self._settings, self._learner, self._draw = config.training, learner, draw
        self._temperature = config.loss.temperature
        self.position = position
        self._measure, self._keep_epoch, self._folder, self._team, self._stop = measure, keep_epoch, folder, team, stop
        self._started = time.monotonic() - position.seconds

    @property
    def epoch(self) -> int:
        """Number of the current epoch, from 1; right after the last step of an epoch, still that epoch."""
        return math.ceil(self.position.step / self._settings.epoch_steps)

    @property
    def done(self) -> float:
        """Share of the run, 0 to 1, by steps or by time, whichever is larger."""
        limit = self._settings.max_seconds
        steps = self.position.step / (self._settings.epochs * self._settings.epoch_steps)
        return min(1.0, max(steps, self.position.seconds / limit if limit else 0.0))

    @property
    def out_of_patience(self) -> bool:
        """Return whether recall has not risen for `training.patience` epochs."""
        patience, position = self._settings.patience, self.position
        measured = position.step // self._settings.epoch_steps
        return patience is not None and position.best is not None and measured - position.best_epoch >= patience

    def train(self, progress: TrainingProgress) -> None:
        """Train until the last epoch, the time limit, or an early stop.

        Raises:
            DivergenceError: training diverged. Stopped: one of the processes received a signal; everything is saved.
            CheckpointError: a checkpoint cannot be written.
        """
        with self._stop.deferred(), contextlib.closing(draw_ahead(self._draw, self.position.step + 1)) as batches:
            while True:
                # Signals and clocks differ between processes: a signal to any of them counts, and the fastest clock.
                seconds = time.monotonic() - self._started
                signal, self.position.seconds = self._team.agree_on_max(self._stop.number, seconds)
                if signal:
                    self._save()
                    raise Stopped(128 + int(signal))
                if self._epoch_is_over():
                    self._end_epoch(progress)
                elif self.done == 1 or self.out_of_patience:
                    return
                else:
                    self._step(batches, progress)

    def plot(self) -> None:
        """Plot the metrics into the run's folder."""
        if self._folder:
            self._folder.plot()

    def _epoch_is_over(self) -> bool:
        position = self.position
        return position.tally.steps > 0 and (position.step % self._settings.epoch_steps == 0 or self.done == 1)

    def _step(self, batches: Iterator[TrainingBatch], progress: TrainingProgress) -> None:
        begin = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - begin
        half = self._settings.precision == "bfloat16"
        with paddle.amp.auto_cast(enable=half, dtype="bfloat16"):
            loss = self._learner.step(batch, self._rate())
        self._count(loss, waited, time.monotonic() - begin)
        self._check(loss)
        progress.step(self.done, self.epoch, self._settings.batch_size, self.position.tally)

    def _rate(self) -> float:
        """Learning rate of the next step."""
        falling = self._settings.decay == "linear"
        return self._settings.learning_rate * (1 - self.done if falling else 1.0)

    def _count(self, loss: float, waited: float, seconds: float) -> None:
        position, tally = self.position, self.position.tally
        if position.first_loss is None:
            position.first_loss = position.recent_loss = loss
        position.step += 1
        position.recent_loss += SMOOTHING * (loss - position.recent_loss)
        tally.steps, tally.loss = tally.steps + 1, tally.loss + loss
        tally.waited, tally.seconds = tally.waited + waited, tally.seconds + seconds

    def _check(self, loss: float) -> None:
        """Check the loss of the last step.

        Raises:
            DivergenceError: the loss shows that training diverged.
        """
        position, first = self.position, self.position.first_loss or 0.0
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif position.recent_loss > DIVERGED * first:
            what = f"the loss is {position.recent_loss:.3g}, that of the untrained network was {first:.3g}"
        else:
            return
        advice = (
            f"Lower training.learning_rate (now {self._settings.learning_rate:g}) or raise loss.temperature "
            f"(now {self._temperature:g}), and start again"
        )
        kept = "no checkpoint has been written yet"
        if self._folder and self._folder.saved_step:
            kept = f"{self._folder.path} keeps the earlier checkpoints, the last one of step {self._folder.saved_step}"
        where = f"step {position.step} (epoch {self.epoch})"
        raise DivergenceError(f"training diverged at {where}: {what}. {advice}; {kept}.")

    def _end_epoch(self, progress: TrainingProgress) -> None:
        """Measure, write a line of metrics, then the checkpoint, so that each epoch of a checkpoint has its line."""
        position = self.position
        measured = self._measure() if self._folder else {}
        (recall,) = self._team.agree_on_max(measured.get(RECALL, -math.inf))
        best = recall > (-math.inf if position.best is None else position.best)
        if best:
            position.best, position.best_epoch = recall, self.epoch
        position.seconds = time.monotonic() - self._started
        line = {**self._epoch_metrics(), **measured}
        position.tally = EpochTally()
        if self._folder:
            self._folder.append_metrics(line)
            self._keep_epoch(self.epoch, measured)
            self._save(best=best)
        progress.epoch(line, best=best)

    def _epoch_metrics(self) -> dict[str, Any]:
        tally = self.position.tally
        return {
            "epoch": self.epoch,
            "step": self.position.step,
            "seconds": self.position.seconds,
            "loss": tally.loss / tally.steps,
            "samples_per_second": tally.steps * self._settings.batch_size / max(tally.seconds, 1e-9),
            "data_share": tally.waited / max(tally.seconds, 1e-9),
            "learning_rate": self._rate(),
        }

    def _save(self, *, best: bool = False) -> None:
        if self._folder:
            self._folder.save(self.position, self._learner.state(), best=best)
