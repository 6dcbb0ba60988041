"""The plain lines of a training run, which replace the bar where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from model.training.checkpoint import EpochTally
from model.training.progress import LINE_INTERVAL_S, TrainingProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("model.training.progress.time.monotonic", lambda: now[0])
    return now


def test_lines_are_at_least_an_interval_apart_and_estimate_the_time_left(clock: list[float]) -> None:
    output = io.StringIO()
    tally = EpochTally(steps=10, loss=25.0, seconds=5.0)
    with TrainingProgress(Console(file=output, width=200), epochs=4, done=0.5) as progress:
        for share in (0.6, 0.75):
            progress.step(share, 3, 100, tally)
            clock[0] += LINE_INTERVAL_S
        progress.step(0.75, 3, 100, tally)
    # Since the run was resumed at one half, a quarter of it has taken two intervals; the last quarter takes as long.
    (line,) = [text for text in output.getvalue().splitlines() if text.startswith("training  75%")][-1:]
    assert line == "training  75%  epoch 3/4  loss 2.500  200 samples/s  20 s left"


def test_the_line_of_an_epoch_has_all_measured_metrics() -> None:
    output = io.StringIO()
    metrics = {"epoch": 2, "step": 10, "seconds": 3.0, "loss": 1.5, "samples_per_second": 1234.5, "data_share": 0.025}
    metrics |= {"learning_rate": 0.01, "recall@50": 0.25}
    TrainingProgress(Console(file=output, width=200), epochs=4).epoch(metrics, best=True)
    expected = (
        "epoch 2/4  loss 1.5000  recall@50 0.2500  1,234 samples/s  2.5% of the time waiting for data  best so far"
    )
    assert output.getvalue().splitlines() == [expected]
