"""The training loop, on a learner that learns nothing: epochs, checkpoints, the end, and going on after it."""

from __future__ import annotations

import dataclasses
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

from configs.errors import ConfigError
from configs.loader import load_train
from configs.schema import TrainConfig
from model.training import trainer as module
from model.training.checkpoint import Checkpoint, CheckpointError, Position
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
#: Metrics that are the same in every run; the others are seconds.
SAME = ("epoch", "step", "loss", "learning_rate", RECALL)


class ScriptedLearner:
    """Has the losses that it was told to have, and remembers its rates; its state is the number of its steps."""

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
    """A trainer in `folder`, new or going on; epoch n has the n-th recall, if there are any."""
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
    """The metrics that do not depend on the clock."""
    lines = RunFolder(folder, config_of(), "data").metrics()
    return [{key: line[key] for key in SAME if key in line} for line in lines]


def inline(draw: Callable[[int], TrainingBatch], first: int) -> Iterator[TrainingBatch]:
    """`draw_ahead` without its thread, so that a signal comes at a known step."""
    yield from map(draw, itertools.count(first))


def test_each_epoch_has_its_line_and_the_rate_falls_to_zero(tmp_path: Path) -> None:
    learner = ScriptedLearner()
    train(run_of(tmp_path, learner, config_of("training.learning_rate=0.1")))
    assert learner.rates == pytest.approx([0.1 * (1 - step / 20) for step in range(20)])
    lines = lines_of(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert [line["loss"] for line in lines] == pytest.approx([6.97, 6.92, 6.87, 6.82])
    assert lines[-1]["learning_rate"] == 0
    assert Checkpoint.read(tmp_path / LAST).position.step == 20
    assert not (tmp_path / BEST).exists()  # nobody to measure on


def test_it_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    config = config_of("training.patience=2", "training.epochs=9")
    trainer = run_of(tmp_path, learner := ScriptedLearner(), config, [0.1, 0.3, 0.2, 0.3])
    train(trainer)
    assert learner.steps == 20  # the second epoch and two more
    assert trainer.done < 1
    assert (trainer.position.best, trainer.position.best_epoch) == (0.3, 2)
    assert Checkpoint.read(tmp_path / BEST).state["steps"] == 10
    assert Checkpoint.read(tmp_path / LAST).state["steps"] == 20
    train(run_of(tmp_path, learner, config, at=trainer.position))
    assert learner.steps == 20  # --resume finds nothing to do


def test_without_patience_it_goes_on(tmp_path: Path) -> None:
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


def test_a_loss_that_jumps_once_is_no_divergence(tmp_path: Path) -> None:
    train(run_of(tmp_path, ScriptedLearner(lambda step: 70.0 if step == 3 else 7.0), config_of()))
    assert len(lines_of(tmp_path)) == 4


@pytest.mark.parametrize("stopped_at", [1, 5, 7, 10, 20])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    """Within an epoch, with its last step, and with the very last one: the step is finished, and nothing is lost."""
    monkeypatch.setattr(module, "draw_ahead", inline)
    config, recalls = config_of(), [0.1, 0.3, 0.2, 0.4]
    whole = run_of(tmp_path / "whole", ScriptedLearner(), config, recalls)
    train(whole)

    stop, learner = StopSignals(), ScriptedLearner()

    def draw(step: int) -> TrainingBatch:
        stop.number = signal.SIGINT if step == stopped_at else 0  # somebody presses Ctrl-C meanwhile
        return NO_BATCH

    with pytest.raises(Stopped) as caught:
        train(run_of(tmp_path / "broken", learner, config, recalls, stop, draw=draw))
    assert caught.value.status == 130
    checkpoint = Checkpoint.read(tmp_path / "broken" / LAST)
    assert checkpoint.state["steps"] == checkpoint.position.step == stopped_at

    rest = ScriptedLearner()
    rest.steps = stopped_at
    train(run_of(tmp_path / "broken", rest, config, recalls, at=checkpoint.position))
    assert learner.rates + rest.rates == [0.01 * (1 - step / 20) for step in range(20)]
    assert lines_of(tmp_path / "broken") == lines_of(tmp_path / "whole")
    ends = [Checkpoint.read(tmp_path / name / LAST).position for name in ("whole", "broken")]
    for end in ends:
        end.seconds = 0
    assert ends[0] == ends[1]


def test_lines_behind_the_checkpoint_are_cut(tmp_path: Path) -> None:
    """A process may die between an epoch's line and its checkpoint, or within the line."""
    config = config_of()
    run = RunFolder(tmp_path, config, "data")
    run.create()
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    run.resume(Position(step=10), 2)
    run.append_metrics({"epoch": 3, "again": True})
    assert run.metrics() == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "again": True}]


def test_the_share_of_the_time_that_waits_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def passes(seconds: float) -> None:
        clock[0] += seconds

    def batches(draw: Callable[[int], TrainingBatch], first: int) -> Iterator[TrainingBatch]:
        while True:
            passes(1)
            yield NO_BATCH

    def loss(step: int) -> float:
        passes(3)
        return 7.0

    monkeypatch.setattr(module, "draw_ahead", batches)
    monkeypatch.setattr("model.training.trainer.time.monotonic", lambda: clock[0])
    config = config_of("training.batch_size=32")
    train(run_of(tmp_path, ScriptedLearner(loss), config))
    for line in RunFolder(tmp_path, config, "data").metrics():
        assert line["data_share"] == 0.25
        assert line["samples_per_second"] == 8
        assert line["seconds"] == line["step"] * 4


def test_the_clock_ends_a_run_within_an_epoch_which_is_measured(
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


def test_batches_are_drawn_in_order_and_their_faults_are_raised() -> None:
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


def checkpoint_of(config: TrainConfig) -> Checkpoint:
    position = Position(step=3, seconds=0.1 + 0.2, first_loss=1 / 3, best=0.7)
    return Checkpoint(position, {"w": np.arange(3)}, config.model_dump(mode="json"), "data")


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint_of(config_of())
    written.write(tmp_path / LAST, tmp_path / BEST)
    for path in (tmp_path / LAST, tmp_path / BEST):
        read = Checkpoint.read(path)
        assert (read.position, read.config, read.data) == (written.position, written.config, written.data)
        assert read.state.keys() == {"w"}
        assert (read.state["w"] == np.arange(3)).all()
    assert {path.name for path in tmp_path.iterdir()} == {LAST, BEST}


def test_a_new_checkpoint_leaves_the_best_one_alone(tmp_path: Path) -> None:
    """Both names are of the same file at first; and a process may have died while a draft had that file, too."""
    first = checkpoint_of(config_of())
    first.write(tmp_path / LAST, tmp_path / BEST)
    (tmp_path / f".{LAST}.draft").hardlink_to(tmp_path / BEST)
    dataclasses.replace(first, position=Position(step=9)).write(tmp_path / LAST)
    assert Checkpoint.read(tmp_path / LAST).position.step == 9
    assert Checkpoint.read(tmp_path / BEST).position.step == 3


def test_a_checkpoint_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / LAST
    with pytest.raises(CheckpointError, match=r"last\.npz: cannot be read .* --resume"):
        Checkpoint.read(path)
    checkpoint_of(config_of()).write(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"last\.npz: no checkpoint"):
        Checkpoint.read(path)
    np.savez(path, w=np.arange(3))
    with pytest.raises(CheckpointError, match=r"last\.npz: no checkpoint"):
        Checkpoint.read(path)


def test_a_run_goes_on_with_its_own_settings_and_data() -> None:
    checkpoint = checkpoint_of(config_of())
    elsewhere = config_of("output.folder=x", "output.keep_epochs=true", "training.max_seconds=9", "data.paths=[y]")
    checkpoint.check(elsewhere.model_dump(mode="json"), "data")
    changed = config_of("training.seed=2", "network.dim=7").model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"network\.dim was 64, training\.seed was 1"):
        checkpoint.check(changed, "data")
    with pytest.raises(CheckpointError, match="other data"):
        checkpoint.check(config_of().model_dump(mode="json"), "other")


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, config_of(), "data")
    run.create()
    with pytest.raises(CheckpointError, match=r"--resume.*--run"):
        run.create()


def test_signals_are_noted_in_the_loop_and_break_off_elsewhere() -> None:
    with StopSignals().installed() as stop:
        with stop.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # Paddle's launcher repeats it
            assert stop.status == 143
            stop.number = 0
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert stop.status == 130
            stop.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            stop.number = 0
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt), StopSignals().installed() as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)  # nobody looked
