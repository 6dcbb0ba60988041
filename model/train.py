"""Train MIND on click files and write an artifact: python -m model.train -c configs/mind.yaml --data FILE…"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

if not __package__:  # started as `python model/train.py`: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
from rich.console import Console

from configs.cli import Command, config_options
from configs.errors import ConfigError
from configs.loader import load_train
from configs.schema import TrainConfig
from configs.text import count
from model.artifact import Artifact, save_artifact
from model.artifact_folder import check_target
from model.data.clicks import Holdout
from model.data.files import DataError
from model.evaluation.measure import measure_encoder
from model.serving.encoder import Encoder, Routing
from model.training.backend import paddle
from model.training.checkpoint import Checkpoint, Position
from model.training.learner import Learner
from model.training.progress import TrainingProgress
from model.training.run_folder import BEST, CONFIG, LAST, RunFolder, new_path
from model.training.sampling import Sampler
from model.training.signals import StopSignals
from model.training.team import Team
from model.training.trainer import MEASURED_AT, RECALL, DivergenceError, Metrics, Stopped, Trainer
from model.training.training_set import TrainingSet

EPILOG = """\b
Examples:
  python -m model.train -c configs/mind.yaml --data clicks.csv --out artifacts/latest
  python -m model.train --data clicks.csv --set training.epochs=5 --run runs/short
  python -m model.train --resume runs/short
  python -m paddle.distributed.launch --nproc_per_node 2 model/train.py --data clicks.csv

\b
Exit status: 0 the artifact is written; 1 a file cannot be used, or the training diverged; 78 a wrong setting;
130 or 143 stopped by Ctrl-C or SIGTERM: continue with --resume.
"""


@click.command(
    cls=Command,
    epilog=EPILOG,
    less_memory="lower training.batch_size, loss.negatives or network.dim, or give less data",
)
@config_options(load_train)
@click.option("--data", multiple=True, metavar="PATH", help="Click file; repeatable. Default: data.paths.")
@click.option("--out", metavar="DIR", help="Folder of the artifact; default: output.folder.")
@click.option("--run", type=click.Path(path_type=Path), help="Folder of this run; default: a new one in output.runs.")
@click.option("--resume", type=click.Path(path_type=Path), help="Folder of a run to continue.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    data: tuple[str, ...],
    out: str | None,
    run: Path | None,
    resume: Path | None,
) -> None:
    """Train MIND on click files and write an artifact: weights, item vectors, manifest."""
    if resume and (config_path or run):
        raise click.UsageError("--resume excludes -c and --run: a resumed run keeps its configuration and folder")
    given = [f"data.paths={json.dumps(data)}"] if data else []
    given += [f"output.folder={json.dumps(out)}"] if out else []
    paddle.disable_signal_handler()  # `StopSignals` handles Ctrl-C and SIGTERM
    with StopSignals().installed() as stop:
        try:
            config = load_train(resume / CONFIG if resume else config_path, (*overrides, *given))
            train(config, Console(highlight=False), run=run, resume=resume, stop=stop)
        except Stopped as stopped:
            sys.exit(stopped.status)
        except KeyboardInterrupt:
            click.echo("Stopped; no artifact was written.", err=True)
            sys.exit(stop.status)


# Longer than 50 lines: the steps of a run in their order, most of them one call.
def train(
    config: TrainConfig,
    console: Console,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    stop: StopSignals | None = None,
) -> Artifact | None:
    """Run one training, from click files to the artifact; return None in processes other than the leader of the team.

    Args:
        run: folder of a new run; None = a new one in `output.runs`. resume: folder of a run to resume.
        stop: signals that end the run; None = none do.

    Raises:
        ConfigError, DataError, ArtifactError, CheckpointError: the input cannot be used; the message names the remedy.
        DivergenceError, Stopped: see `Trainer.train`; no artifact is written.
    """
    start = time.monotonic()
    check_target(config.output.folder)  # fail before minutes of training, not after
    team, settings = Team.join(), config.training
    console.quiet |= not team.is_leader
    check_hardware(config, team)

    data = TrainingSet.read(config.data, settings.seed)
    console.print(str(data), soft_wrap=True, markup=False)
    try:
        sampler = Sampler(data.clicks, data.counts, config)
    except ValueError as error:
        raise DataError(f"{error}: give more data, or lower training.shortest_history") from None
    learner = Learner(config, len(data.item_ids), sampler.log_q, rank=team.rank, processes=team.size)

    folder, position = open_run(config, learner, data, team, run, resume)
    device = paddle.device.get_device() + (f", {team.size} processes" if team.size > 1 else "")
    console.print(f"run {folder.path} on {device}" + (f", from step {position.step}" if resume else ""), soft_wrap=True)

    sample = data.sample_held(settings.valid_users, settings.seed)
    trainer = Trainer(
        config,
        learner,
        sampler.batch,
        position=position,
        measure=lambda: measure(config, learner, data, sample),
        keep_epoch=lambda epoch, metrics: keep_epoch(
            config, learner, data, folder.path / "epochs" / f"{epoch:04}", metrics
        ),
        folder=folder if team.is_leader else None,
        team=team,
        stop=stop or StopSignals(),
    )
    try:
        with TrainingProgress(console, settings.epochs, trainer.done) as progress:
            trainer.train(progress)
    except (Stopped, DivergenceError) as error:
        if isinstance(error, Stopped):
            resume_with = f"resume with: {folder.resume_command(team.size)}"
            console.print(f"Stopped at step {position.step}; no artifact was written; {resume_with}", soft_wrap=True)
        trainer.plot()
        raise
    if not team.is_leader:
        return None

    artifact = finish(config, learner, data, trainer, folder, console)
    seconds = time.monotonic() - start
    summary = (
        f"model {artifact.model_version}: {count(len(data.item_ids), 'item')}, {seconds:.0f} s, in {artifact.path}"
    )
    console.print(summary, soft_wrap=True)
    trainer.plot()  # last: if the figure cannot be written, the model is saved already
    return artifact


def open_run(
    config: TrainConfig, learner: Learner, data: TrainingSet, team: Team, run: Path | None, resume: Path | None
) -> tuple[RunFolder, Position]:
    """Create the folder of a new run, or restore the learner from the checkpoint of the run to resume.

    Raises:
        ConfigError, CheckpointError: the folder cannot be used, or the run had other settings or data.
    """
    position, fingerprint = Position(), data.fingerprint()
    folder = RunFolder(resume or run or new_path(config), config, fingerprint)
    if resume:
        checkpoint = Checkpoint.read(resume / LAST)
        checkpoint.check(config.model_dump(mode="json"), fingerprint)
        learner.restore(checkpoint.state)
        position = checkpoint.position
    if team.is_leader:
        folder.resume(position, position.step // config.training.epoch_steps) if resume else folder.create()
    return folder, position


def finish(
    config: TrainConfig, learner: Learner, data: TrainingSet, trainer: Trainer, folder: RunFolder, console: Console
) -> Artifact:
    """Measure the best epoch, or the last one if none was measured, on all held-out users, and write its artifact."""
    if trainer.done < 1:
        since = f"{RECALL} has not risen for {count(config.training.patience or 0, 'epoch')} (training.patience)"
        console.print(f"Stopped early after epoch {trainer.epoch}: {since}", soft_wrap=True)
    if trainer.position.best is not None:
        learner.restore(Checkpoint.read(folder.path / BEST).state)
        console.print(f"Best epoch: {trainer.position.best_epoch}", soft_wrap=True)
    metrics = measure(config, learner, data, data.held)
    if metrics:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        console.print(f"{count(len(data.held.history), 'held-out user')}: {figures}", soft_wrap=True)
    return write(config, learner, data, config.output.folder, metrics)


def check_hardware(config: TrainConfig, team: Team) -> None:
    """Check that this machine can train with these settings.

    Raises:
        ConfigError: half precision without a GPU, or fewer examples in a batch than processes.
    """
    if config.training.precision != "float32" and paddle.device.get_device() == "cpu":
        raise ConfigError("training.precision: half precision needs a GPU, but Paddle finds none; set it to float32")
    if config.training.batch_size < team.size:
        size = config.training.batch_size
        raise ConfigError(
            f"training.batch_size: {count(size, 'example')} cannot be divided among {team.size} processes; raise it"
        )


def measure(config: TrainConfig, learner: Learner, data: TrainingSet, users: Holdout) -> Metrics:
    """Measure the quality of the current weights in NumPy, as they will be served; empty without users."""
    if not len(users.history):
        return {}
    encoder = Encoder(learner.weights(), Routing.from_network(config.network))
    return measure_encoder(encoder, data.item_ids, learner.vectors(), users, MEASURED_AT)


def keep_epoch(config: TrainConfig, learner: Learner, data: TrainingSet, folder: Path, metrics: Metrics) -> None:
    """Write the artifact of an epoch if `output.keep_epochs` is set."""
    if config.output.keep_epochs:
        write(config, learner, data, folder, metrics)


def write(config: TrainConfig, learner: Learner, data: TrainingSet, folder: Path, metrics: Metrics) -> Artifact:
    """Write an artifact with the current weights.

    Raises:
        ArtifactError: the folder cannot be written, or a number is not finite.
    """
    return save_artifact(
        folder,
        weights=learner.weights(),
        interests=config.network.interests,
        history_length=config.network.history_length,
        encoder=Routing.from_network(config.network).to_dict(),
        item_ids=data.item_ids,
        item_vectors=learner.vectors(),
        item_counts=data.counts,
        users=len(data.clicks),
        clicks=len(data.clicks.items),
        config=config.model_dump(mode="json"),
        metrics=metrics,
        skipped=data.malformed.figures(),
    )


if __name__ == "__main__":
    main(prog_name="python -m model.train")
