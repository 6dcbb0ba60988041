"""Small training runs: their data, their arguments, and processes that run them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from model.data.clicks import Clicks
from model.train import main

ROOT = Path(__file__).parents[3]
TASTES, ITEMS_PER_TASTE = 8, 25


@dataclass(frozen=True)
class TwoTasteUsers:
    """Users who each click items of two disjoint tastes, half of the clicks on each, in random order.

    Attributes:
        clicks: 20 clicks of each of U users; items 1000 + 25 t … 1000 + 25 t + 24 belong to taste t.
        tastes: (U, 2), the tastes of each user.
    """

    clicks: Clicks
    tastes: np.ndarray[tuple[int, int], np.dtype[np.int64]]

    @classmethod
    def draw(cls, users: int, rng: np.random.Generator) -> TwoTasteUsers:
        tastes = np.array([rng.choice(TASTES, 2, replace=False) for _ in range(users)])
        halves = rng.permuted(np.tile([0, 1], (users, 10)), axis=1)  # (users, 20)
        items = np.take_along_axis(tastes, halves, axis=1) * ITEMS_PER_TASTE
        items += rng.integers(0, ITEMS_PER_TASTE, halves.shape)
        return cls(Clicks(np.arange(users), np.arange(users + 1) * 20, items.ravel() + 1000), tastes)

    def shuffled(self, rng: np.random.Generator) -> TwoTasteUsers:
        """Return the same users with the items shuffled among them, so that the clicks follow no tastes."""
        clicks = self.clicks
        return TwoTasteUsers(Clicks(clicks.users, clicks.offsets, rng.permutation(clicks.items)), self.tastes)

    def write(self, path: Path) -> Path:
        lines = (f"{u},{item},{n}\n" for u in range(len(self.clicks)) for n, item in enumerate(self.clicks.items_of(u)))
        path.write_text("".join(lines), encoding="utf-8")
        return path


def small_run(folder: Path, *overrides: str) -> list[str]:
    """Return the arguments of a run that takes a second, on 40 users."""
    path = TwoTasteUsers.draw(40, np.random.default_rng(1)).write(folder / "clicks.csv")
    small = ["training.epochs=1", "training.epoch_steps=5", "training.batch_size=32", "network.dim=8"]
    small += ["loss.negatives=16", f"output.runs={folder / 'runs'}", *overrides]
    sets = [argument for item in small for argument in ("--set", item)]
    return ["--data", str(path), "--out", str(folder / "artifact"), *sets]


def succeed(arguments: list[str]) -> str:
    """Run the command in this process, and return its output."""
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return the metrics that do not depend on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocked = {"seconds", "samples_per_second", "data_share"}
    return [{key: value for key, value in line.items() if key not in clocked} for line in lines]


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a Python process in the checkout, and kill it at the end."""
    command = [sys.executable, "-u", *arguments]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def wait_for(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    while not condition():
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
