"""The training loop: steps, epochs, checkpoints, and when it ends."""

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

#: Recommendations that quality is measured on while training; the published figures have the same number.
MEASURED_AT = 50
#: What early stopping looks at, and what "best" means.
RECALL = f"recall@{MEASURED_AT}"
#: Batches drawn draw_ahead: enough that one slow draw is not waited for.
BATCHES_AHEAD = 3
#: Weight of the newest step in the running mean of the loss: it shows about the last 50 steps.
SMOOTHING = 0.02
#: The loss of the first step is that of a network that knows nothing. One that is so many times as bad on average was
#: driven off by its steps; sane runs stay below 1.
DIVERGED = 3.0

Metrics = Mapping[str, float]


class LearnerLike(Protocol):
    """What the loop needs of a `Learner`."""

    def step(self, batch: TrainingBatch, rate: float) -> float:
        """One step with learning rate `rate`; the loss before it."""
        ...

    def state(self) -> State:
        """All that the learner needs to go on from here."""
        ...


class DivergenceError(MindstreamError):
    """The loss is no number any more, or far above that of an untrained network. The message says what to change."""


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end; the checkpoint is written. `status` is the process' exit status."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def draw_ahead(draw: Callable[[int], TrainingBatch], first: int) -> Generator[TrainingBatch, None, None]:
    """The batches of steps `first`, `first` + 1, …, drawn by a thread beside the one that trains."""
    with ThreadPoolExecutor(1, "batches") as thread:
        drawn = deque(thread.submit(draw, step) for step in range(first, first + BATCHES_AHEAD))
        for step in itertools.count(first + BATCHES_AHEAD):
            batch = drawn.popleft().result()
            drawn.append(thread.submit(draw, step))
            yield batch


class Trainer:
    """One run of a learner.

    Attributes:
        at: how far it is.
    """

    def __init__(
        self,
        config: TrainConfig,
        learner: LearnerLike,
        draw: Callable[[int], TrainingBatch],
        *,
        at: Position,
        measure: Callable[[], Metrics],
        keep: Callable[[int, Metrics], object],
        run: RunFolder | None,
        team: Team,
        stop: StopSignals,
    ) -> None:
        """
        Args:
            draw: step → batch. at: where to begin.
            measure: quality of the present weights, empty with nobody to measure on; called after each epoch where
                `run` is given.
            keep: is told each epoch and its quality, likewise.
            run: where metrics and checkpoints go; None in processes that do not lead the team.
        """
        self._settings, self._learner, self._draw = config.training, learner, draw
        self._temperature = config.loss.temperature
        self.at = at
        self._measure, self._keep, self._run, self._team, self._stop = measure, keep, run, team, stop
        self._started = time.monotonic() - at.seconds

    @property
    def epoch(self) -> int:
        """The present epoch, from 1; after its last step still this one."""
        return math.ceil(self.at.step / self._settings.epoch_steps)

    @property
    def done(self) -> float:
        """Share of the run, 0 to 1, by steps or by the clock, whichever is further."""
        limit = self._settings.max_seconds
        steps = self.at.step / (self._settings.epochs * self._settings.epoch_steps)
        return min(1.0, max(steps, self.at.seconds / limit if limit else 0.0))

    @property
    def out_of_patience(self) -> bool:
        """Whether recall has not risen for `training.patience` epochs."""
        patience, measured = self._settings.patience, self.at.step // self._settings.epoch_steps
        return patience is not None and self.at.best is not None and measured - self.at.best_epoch >= patience

    def train(self, progress: TrainingProgress) -> None:
        """Trains to the end: the last epoch, the last second, or early.

        Raises:
            DivergenceError: the loss says so. Stopped: a signal came to one of the processes; everything is saved.
            CheckpointError: a checkpoint cannot be written.
        """
        with self._stop.deferred(), contextlib.closing(draw_ahead(self._draw, self.at.step + 1)) as batches:
            while True:
                # The two things that a process sees alone: whoever was told, and whichever clock is first, counts.
                signal, self.at.seconds = self._team.agree_on_max(self._stop.number, time.monotonic() - self._started)
                if signal:
                    self._save()
                    raise Stopped(128 + int(signal))
                if self._epoch_is_over():
                    self._end_epoch(progress)
                elif self.done == 1 or self.out_of_patience:
                    return
                else:
                    self._step(batches, progress)

    def draw(self) -> None:
        """Draws the metrics into the run's folder."""
        if self._run:
            self._run.draw()

    def _epoch_is_over(self) -> bool:
        return self.at.tally.steps > 0 and (self.at.step % self._settings.epoch_steps == 0 or self.done == 1)

    def _step(self, batches: Iterator[TrainingBatch], progress: TrainingProgress) -> None:
        begin = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - begin
        half = self._settings.precision == "bfloat16"
        with paddle.amp.auto_cast(enable=half, dtype="bfloat16"):
            loss = self._learner.step(batch, self._rate())
        self._count(loss, waited, time.monotonic() - begin)
        self._check(loss)
        progress.step(self.done, self.epoch, self._settings.batch_size, self.at.tally)

    def _rate(self) -> float:
        """Learning rate of the next step."""
        falling = self._settings.decay == "linear"
        return self._settings.learning_rate * (1 - self.done if falling else 1.0)

    def _count(self, loss: float, waited: float, seconds: float) -> None:
        at, tally = self.at, self.at.tally
        if at.first_loss is None:
            at.first_loss = at.recent_loss = loss
        at.step += 1
        at.recent_loss += SMOOTHING * (loss - at.recent_loss)
        tally.steps, tally.loss = tally.steps + 1, tally.loss + loss
        tally.waited, tally.seconds = tally.waited + waited, tally.seconds + seconds

    def _check(self, loss: float) -> None:
        """Raises DivergenceError."""
        at, first = self.at, self.at.first_loss or 0.0
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif at.recent_loss > DIVERGED * first:
            what = f"the loss is {at.recent_loss:.3g}, that of the untrained network was {first:.3g}"
        else:
            return
        advice = (
            f"Lower training.learning_rate (now {self._settings.learning_rate:g}) or raise loss.temperature "
            f"(now {self._temperature:g}), and start again"
        )
        kept = "there is no checkpoint yet"
        if self._run and self._run.saved:
            kept = f"{self._run.path} keeps the checkpoints from before, the last one of step {self._run.saved}"
        raise DivergenceError(f"training diverged at step {at.step} (epoch {self.epoch}): {what}. {advice}; {kept}.")

    def _end_epoch(self, progress: TrainingProgress) -> None:
        """Measures, writes a line of metrics, then the checkpoint: so a checkpoint's epochs always have their lines."""
        at = self.at
        measured = self._measure() if self._run else {}
        (recall,) = self._team.agree_on_max(measured.get(RECALL, -math.inf))
        best = recall > (-math.inf if at.best is None else at.best)
        if best:
            at.best, at.best_epoch = recall, self.epoch
        at.seconds = time.monotonic() - self._started
        line = {**self._line(), **measured}
        at.tally = EpochTally()
        if self._run:
            self._run.add(line)
            self._keep(self.epoch, measured)
            self._save(best=best)
        progress.epoch(line, best=best)

    def _line(self) -> dict[str, Any]:
        tally = self.at.tally
        return {
            "epoch": self.epoch,
            "step": self.at.step,
            "seconds": self.at.seconds,
            "loss": tally.loss / tally.steps,
            "samples_per_second": tally.steps * self._settings.batch_size / max(tally.seconds, 1e-9),
            "data_share": tally.waited / max(tally.seconds, 1e-9),
            "learning_rate": self._rate(),
        }

    def _save(self, *, best: bool = False) -> None:
        if self._run:
            self._run.save(self.at, self._learner.state(), best=best)
