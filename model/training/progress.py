"""Progress of a training run: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from model.training.checkpoint import EpochTally

#: Seconds between two plain lines.
LINE_INTERVAL_S = 10.0
#: Keys of an epoch's metrics that are formatted separately, or not shown.
_NOT_LISTED = {"epoch", "step", "seconds", "loss", "samples_per_second", "data_share", "learning_rate"}


class TrainingProgress:
    """Context manager around the training loop; `step` after each optimizer step, `epoch` after each epoch."""

    def __init__(self, console: Console, epochs: int, done: float = 0.0) -> None:
        """
        Args:
            done: share of the run, 0 to 1, that was finished before it was resumed; it does not affect the estimate of
                the time left.
        """
        self._console, self._epochs = console, epochs
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[status]}  left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0, status="")
        self._bar.update(self._task, completed=done)
        self._begin = self._line = time.monotonic()
        self._before = done

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, done: float, epoch: int, batch_size: int, tally: EpochTally) -> None:
        """Show progress after a step.

        Args:
            done: share of the run, 0 to 1, that is finished; tally: sums over the epoch so far.
        """
        seconds = max(tally.seconds, 1e-9)
        loss, speed = tally.loss / tally.steps, tally.steps * batch_size / seconds
        status = f"epoch {epoch}/{self._epochs}  loss {loss:.3f}  {speed:,.0f} samples/s"
        self._bar.update(self._task, completed=done, status=status)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._line >= LINE_INTERVAL_S:
            self._line = now
            left = (now - self._begin) * (1 - done) / max(done - self._before, 1e-9)
            self._console.print(f"training {done:4.0%}  {status}  {left:.0f} s left", soft_wrap=True)

    def epoch(self, line: Mapping[str, Any], *, best: bool) -> None:
        """Print the metrics of an epoch."""
        measured = "".join(f"  {name} {value:.4f}" for name, value in line.items() if name not in _NOT_LISTED)
        speed = f"{line['samples_per_second']:,.0f} samples/s  {line['data_share']:.1%} of the time waiting for data"
        mark = "  best so far" if best else ""
        text = f"epoch {line['epoch']}/{self._epochs}  loss {line['loss']:.4f}{measured}  {speed}{mark}"
        self._console.print(text, soft_wrap=True)
