"""Train the fusion model on MovieLens and write an artifact: python -m model.fusion.train --data FOLDER"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from configs.cli import Command, config_options
from configs.errors import ConfigError
from configs.loader import load_fusion
from configs.schema import FusionConfig
from configs.text import count
from model.arrays import IntVector
from model.artifact_folder import check_target
from model.data.malformed import SETTING, MalformedLines
from model.fusion.artifact import FusionArtifact, save_artifact
from model.fusion.movielens import MovieLens, read_movielens
from model.fusion.training import Model, errors, fit
from model.training.backend import paddle
from model.training.progress import TrainingProgress
from model.training.signals import StopSignals

EPILOG = """\b
Examples:
  python -m model.fusion.train --data ml-1m
  python -m model.fusion.train --data ml-1m.zip --out artifacts/fusion --set training.epochs=2

\b
The data are users.dat, movies.dat and ratings.dat of MovieLens-1M (https://grouplens.org/datasets/movielens/1m/), or
of python -m producers.ratings. Then: python -m model.fusion.movies -f ml-1m/movies.dat, and python -m
model.fusion.recommend. Exit status: 0 the artifact is written; 1 a file cannot be used, or the training diverged;
78 a wrong setting; 130 or 143 stopped by Ctrl-C or SIGTERM.
"""


@click.command(cls=Command, epilog=EPILOG, less_memory="lower training.batch_size or network.id_dim")
@config_options(load_fusion)
@click.option("--data", metavar="PATH", help="Folder or zip archive of MovieLens-1M; default: data.path.")
@click.option("--out", metavar="DIR", help="Folder of the artifact; default: output.folder.")
def main(config_path: Path | None, overrides: tuple[str, ...], data: str | None, out: str | None) -> None:
    """Train the fusion model: a user's id, gender, age group and occupation, and a film's id, genres and title, become
    vectors whose cosine, times 5, is the predicted rating."""
    given = [f"data.path={json.dumps(data)}"] if data else []
    given += [f"output.folder={json.dumps(out)}"] if out else []
    paddle.disable_signal_handler()  # `StopSignals` handles Ctrl-C and SIGTERM
    with StopSignals().installed() as stop:
        try:
            train(load_fusion(config_path, (*overrides, *given)), Console(highlight=False))
        except KeyboardInterrupt:
            click.echo("Stopped; no artifact was written.", err=True)
            sys.exit(stop.status)


def train(config: FusionConfig, console: Console) -> FusionArtifact:
    """Run one training, from the files to the artifact.

    Raises:
        ConfigError, DataError, ArtifactError: the input cannot be used; the message names the remedy.
        DivergenceError: see `fit`; no artifact is written.
    """
    start = time.monotonic()
    check_target(config.output.folder)  # fail before minutes of training, not after
    malformed = MalformedLines(config.data.malformed, SETTING)
    data = read_movielens(data_path(config), malformed)
    for line in (data, *malformed.skipped):
        console.print(str(line), soft_wrap=True, markup=False)

    held = np.random.default_rng(config.training.seed).random(len(data.rating)) < config.data.valid_fraction
    valid = np.flatnonzero(held)

    def measure(model: Model) -> dict[str, float]:
        return errors(model.predict(data.user[valid], data.film[valid]), data.rating[valid])

    with TrainingProgress(console, config.training.epochs) as progress:
        model = fit(config, data, np.flatnonzero(~held), progress, measure)
    artifact = write(config, data, model, np.flatnonzero(~held), measure(model), malformed)
    seconds = time.monotonic() - start
    summary = f"{count(len(data.films), 'film')}, {seconds:.0f} s, in {artifact.path}"
    console.print(f"model {artifact.model_version}: {summary}", soft_wrap=True)
    return artifact


def data_path(config: FusionConfig) -> Path:
    """Return the path of the data.

    Raises:
        ConfigError: none is given.
    """
    if config.data.path is None:
        raise ConfigError(
            "data.path: no data: give the folder of MovieLens-1M (--data DIR), or generate some: "
            "python -m producers.ratings --out DIR"
        )
    return config.data.path


def write(
    config: FusionConfig,
    data: MovieLens,
    model: Model,
    train: IntVector,
    metrics: dict[str, float],
    malformed: MalformedLines,
) -> FusionArtifact:
    """Write the artifact of a model that was trained on the ratings at the positions `train`."""
    return save_artifact(
        config.output.folder,
        weights=model.weights,
        vocabulary=model.vocabulary,
        user_ids=data.user_ids,
        item_ids=np.array([film.id for film in data.films], np.int64),
        films=model.films,
        item_counts=np.bincount(data.film[train], minlength=len(data.films)),
        config=config.model_dump(mode="json"),
        metrics=metrics,
        skipped=malformed.figures(),
    )


if __name__ == "__main__":
    main(prog_name="python -m model.fusion.train")
