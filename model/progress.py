"""What a training run shows: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

#: Seconds between two plain lines.
LINE_EVERY = 10.0
#: Weight of the newest step in the running mean of the loss: it shows about the last 50 steps.
SMOOTHING = 0.02


class TrainingProgress:
    """Context manager around the training loop; `step` after each optimizer step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[status]}  left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0, status="")
        self._loss: float | None = None
        self._begin = self._line = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, share: float, loss: float, samples: int) -> None:
        """Shows `share` (0 to 1) of the run as done, `samples` examples seen so far."""
        self._loss = loss if self._loss is None else self._loss + SMOOTHING * (loss - self._loss)
        now = time.monotonic()
        status = f"loss {self._loss:.3f}  {samples / max(now - self._begin, 1e-9):,.0f} samples/s"
        self._bar.update(self._task, completed=share, status=status)
        if not self._console.is_terminal and (now - self._line >= LINE_EVERY or share >= 1):
            self._line = now
            left = (now - self._begin) * (1 - share) / share
            self._console.print(f"training {share:4.0%}  {status}  {left:.0f} s left", soft_wrap=True)
