"""The training loop, with a learner that learns nothing: epochs, checkpoints, ending and resuming."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import load_train
from configs.schema import TrainConfig
from model.training import trainer as module
from model.training.checkpoint import Checkpoint, Position
from model.training.optimizer import State
from model.training.progress import TrainingProgress
from model.training.run_folder import BEST, LAST, RunFolder
from model.training.sampling import TrainingBatch
from model.training.signals import StopSignals
from model.training.team import Team
from model.training.trainer import RECALL, DivergenceError, Stopped, Trainer, draw_ahead

NO_BATCH = TrainingBatch(
    np.zeros((1, 1), np.int64), np.ones(1, np.int64), np.ones((1, 1), np.int64), np.ones(1, np.int64)
)
#: Metrics that are the same in every run; the others depend on the clock.
SAME = ("epoch", "step", "loss", "learning_rate", RECALL)


class ScriptedLearner:
    """Returns given losses, and records the learning rates; its state is the number of its steps."""

    def __init__(self, losses: Callable[[int], float] = lambda step: 7 - step / 100) -> None:
        self.losses, self.rates, self.steps = losses, list[float](), 0

    def step(self, batch: TrainingBatch, rate: float) -> float:
        self.steps += 1
        self.rates.append(rate)
        return self.losses(self.steps)

    def state(self) -> State:
        return {"steps": np.array(self.steps)}


def config_of(*overrides: str) -> TrainConfig:
    return load_train(None, ["training.epochs=4", "training.epoch_steps=5", *overrides], {})


def run_of(
    folder: Path,
    learner: ScriptedLearner,
    config: TrainConfig,
    recalls: Sequence[float] = (),
    stop: StopSignals | None = None,
    at: Position | None = None,
    draw: Callable[[int], TrainingBatch] = lambda step: NO_BATCH,
) -> Trainer:
    """Return a trainer in `folder`, new or resumed; epoch n has the n-th recall, if any are given."""
    run, stop = RunFolder(folder, config, "data"), stop or StopSignals()
    if at is None:
        run.create()
    else:
        run.resume(at, at.step // config.training.epoch_steps)
    return Trainer(
        config,
        learner,
        draw,
        position=at or Position(),
        measure=lambda: {RECALL: recalls[(learner.steps - 1) // config.training.epoch_steps]} if recalls else {},
        keep_epoch=lambda epoch, metrics: None,
        folder=run,
        team=Team(),
        stop=stop,
    )


def train(trainer: Trainer) -> None:
    with TrainingProgress(Console(quiet=True), 4) as progress:
        trainer.train(progress)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics that do not depend on the clock."""
    lines = RunFolder(folder, config_of(), "data").metrics()
    return [{key: line[key] for key in SAME if key in line} for line in lines]


def inline(draw: Callable[[int], TrainingBatch], first: int) -> Iterator[TrainingBatch]:
    """Draw batches like `draw_ahead`, but without a thread, so that a signal arrives at a known step."""
    yield from map(draw, itertools.count(first))


def test_each_epoch_has_a_line_of_metrics_and_the_rate_falls_to_zero(tmp_path: Path) -> None:
    learner = ScriptedLearner()
    train(run_of(tmp_path, learner, config_of("training.learning_rate=0.1")))
    assert learner.rates == pytest.approx([0.1 * (1 - step / 20) for step in range(20)])
    lines = lines_of(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert [line["loss"] for line in lines] == pytest.approx([6.97, 6.92, 6.87, 6.82])
    assert lines[-1]["learning_rate"] == 0
    assert Checkpoint.read(tmp_path / LAST).position.step == 20
    assert not (tmp_path / BEST).exists()  # there are no users to measure on


def test_a_run_stops_early_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    config = config_of("training.patience=2", "training.epochs=9")
    trainer = run_of(tmp_path, learner := ScriptedLearner(), config, [0.1, 0.3, 0.2, 0.3])
    train(trainer)
    assert learner.steps == 20  # the best epoch and two more
    assert trainer.done < 1
    assert (trainer.position.best, trainer.position.best_epoch) == (0.3, 2)
    assert Checkpoint.read(tmp_path / BEST).state["steps"] == 10
    assert Checkpoint.read(tmp_path / LAST).state["steps"] == 20
    train(run_of(tmp_path, learner, config, at=trainer.position))
    assert learner.steps == 20  # --resume finds nothing to do


def test_without_patience_a_run_does_not_stop_early(tmp_path: Path) -> None:
    learner = ScriptedLearner()
    train(run_of(tmp_path, learner, config_of("training.patience=null"), [0.4, 0.3, 0.2, 0.1]))
    assert learner.steps == 20


@pytest.mark.parametrize(
    ("losses", "step", "what"),
    [
        (lambda step: math.nan if step == 8 else 7.0, 8, "the loss is nan"),
        (lambda step: math.inf if step == 8 else 7.0, 8, "the loss is inf"),
        (lambda step: 7.0 if step < 7 else 700.0, 8, "the loss is 34.4, that of the untrained network was 7"),
    ],
)
def test_divergence_is_explained_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, losses: Callable[[int], float], step: int, what: str
) -> None:
    with pytest.raises(DivergenceError) as caught:
        train(run_of(tmp_path, ScriptedLearner(losses), config_of(), [0.1, 0.2]))
    for needle in (f"step {step} (epoch 2)", what, "Lower training.learning_rate (now 0.01)", "the last one of step 5"):
        assert needle in str(caught.value)
    assert Checkpoint.read(tmp_path / LAST).position.step == 5


def test_a_loss_that_jumps_once_is_not_divergence(tmp_path: Path) -> None:
    train(run_of(tmp_path, ScriptedLearner(lambda step: 70.0 if step == 3 else 7.0), config_of()))
    assert len(lines_of(tmp_path)) == 4


@pytest.mark.parametrize("stopped_at", [1, 5, 7, 10, 20])
def test_a_stopped_run_resumes_as_if_it_had_not_been_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    """A step in which a signal arrives is finished first: within an epoch, at its end, and at the end of the run."""
    monkeypatch.setattr(module, "draw_ahead", inline)
    config, recalls = config_of(), [0.1, 0.3, 0.2, 0.4]
    whole = run_of(tmp_path / "whole", ScriptedLearner(), config, recalls)
    train(whole)

    stop, learner = StopSignals(), ScriptedLearner()

    def draw(step: int) -> TrainingBatch:
        stop.number = signal.SIGINT if step == stopped_at else 0  # as if Ctrl-C were pressed in this step
        return NO_BATCH

    with pytest.raises(Stopped) as caught:
        train(run_of(tmp_path / "interrupted", learner, config, recalls, stop, draw=draw))
    assert caught.value.status == 130
    checkpoint = Checkpoint.read(tmp_path / "interrupted" / LAST)
    assert checkpoint.state["steps"] == checkpoint.position.step == stopped_at

    rest = ScriptedLearner()
    rest.steps = stopped_at
    train(run_of(tmp_path / "interrupted", rest, config, recalls, at=checkpoint.position))
    assert learner.rates + rest.rates == [0.01 * (1 - step / 20) for step in range(20)]
    assert lines_of(tmp_path / "interrupted") == lines_of(tmp_path / "whole")
    ends = [Checkpoint.read(tmp_path / name / LAST).position for name in ("whole", "interrupted")]
    for end in ends:
        end.seconds = 0
    assert ends[0] == ends[1]


def test_the_share_of_time_spent_waiting_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def advance(seconds: float) -> None:
        clock[0] += seconds

    def batches(draw: Callable[[int], TrainingBatch], first: int) -> Iterator[TrainingBatch]:
        while True:
            advance(1)
            yield NO_BATCH

    def loss(step: int) -> float:
        advance(3)
        return 7.0

    monkeypatch.setattr(module, "draw_ahead", batches)
    monkeypatch.setattr("model.training.trainer.time.monotonic", lambda: clock[0])
    config = config_of("training.batch_size=32")
    train(run_of(tmp_path, ScriptedLearner(loss), config))
    for line in RunFolder(tmp_path, config, "data").metrics():
        assert line["data_share"] == 0.25
        assert line["samples_per_second"] == 8
        assert line["seconds"] == line["step"] * 4


def test_the_time_limit_ends_a_run_within_an_epoch_which_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def loss(step: int) -> float:
        clock[0] += 1
        return 7.0

    monkeypatch.setattr("model.training.trainer.time.monotonic", lambda: clock[0])
    learner = ScriptedLearner(loss)
    train(run_of(tmp_path, learner, config_of("training.max_seconds=7", "training.learning_rate=1"), [0.1, 0.2]))
    assert learner.rates == pytest.approx([1 - step / 7 for step in range(7)])
    assert [line["step"] for line in lines_of(tmp_path)] == [5, 7]


def test_batches_are_drawn_in_order_and_their_errors_are_raised() -> None:
    drawn = []

    def draw(step: int) -> TrainingBatch:
        if step == 9:
            raise MemoryError
        drawn.append(step)
        return NO_BATCH._replace(negatives=np.array([step]))

    batches = draw_ahead(draw, 4)
    assert [int(next(batches).negatives[0]) for _ in range(5)] == [4, 5, 6, 7, 8]
    with pytest.raises(MemoryError):
        next(batches)
    assert drawn == [4, 5, 6, 7, 8, *range(10, 10 + len(drawn) - 5)]
