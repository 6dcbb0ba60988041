"""Measure the fusion model beside simple methods on three splits: python -m model.fusion.evaluate --data FOLDER"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from configs.cli import Command, config_options
from configs.loader import load_fusion
from configs.schema import FusionConfig
from configs.text import count
from model.arrays import FloatVector
from model.data.malformed import SETTING, MalformedLines
from model.fusion.baselines import Factorisation, global_mean, item_mean, tuned_factorisation
from model.fusion.measure import FUSION, LENGTH, LIKED, TARGETS, ColdRecall, Errors, cold_recall, errors_of, groups
from model.fusion.movielens import MovieLens, read_movielens
from model.fusion.splits import SPLITS, Split, SplitName, split
from model.fusion.train import data_path
from model.fusion.training import fit
from model.training.backend import paddle
from model.training.progress import TrainingProgress

#: Share of the ratings, or of the users, that is measured, and share of the training on which methods are tuned.
TEST_SHARE, TUNING_SHARE = 0.1, 0.05
#: Seed of the splits: all seeds of the training are measured on the same one.
SPLIT_SEED = 1
EPILOG = f"""\b
Examples:
  python -m model.fusion.evaluate --data ml-1m
  python -m model.fusion.evaluate --data ml-1m --split user --seeds 3 --json > user.json

\b
For each split, 10 % is measured and the model is trained on the other 90 %, so this takes as long as several trainings.
"random" divides the ratings at random, "time" by their time, "user" by users, all of whose ratings are measured. Root
mean squared error (RMSE) and mean absolute error (MAE) are beside those of the mean of all ratings, of the film's mean,
and of a matrix factorisation with biases, tuned on a part of the training. Users without ratings in training are
predicted by their attributes; for them, recall@{LENGTH} of the first {TARGETS} films that they rated {LIKED:g} or
better is beside that of popular films, overall and among users of the same gender and age. Tables go to standard
output, progress to standard error. Exit status: 0 measured; 1 a file cannot be used; 78 a wrong setting; 130
interrupted.
"""


@dataclass(frozen=True)
class SplitFigures:
    """Figures of one split.

    Attributes:
        errors: group of users → errors, with the first seed. rmse_by_seed: group → of the fusion model.
        recall: with the first seed; None unless the split is by user. recall_by_seed: of the fusion model.
        seconds: of each training.
    """

    split: str
    errors: dict[str, Errors]
    rmse_by_seed: dict[str, list[float]]
    recall: ColdRecall | None
    recall_by_seed: list[float]
    seconds: list[float]


@click.command(cls=Command, epilog=EPILOG, less_memory="lower training.batch_size or network.id_dim")
@config_options(load_fusion)
@click.option("--data", metavar="PATH", help="Folder or zip archive of MovieLens-1M; default: data.path.")
@click.option(
    "--split", "names", multiple=True, type=click.Choice(list(SPLITS)), help="Split; repeatable. Default: all three."
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="Trainings of each split.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    data: str | None,
    names: tuple[SplitName, ...],
    seeds: int,
    as_json: bool,
) -> None:
    """Train the fusion model on divisions of the ratings and measure it beside simple methods."""
    given = [f"data.path={json.dumps(data)}"] if data else []
    config = load_fusion(config_path, (*overrides, *given))
    paddle.disable_signal_handler()
    malformed = MalformedLines(config.data.malformed, SETTING)
    ratings = read_movielens(data_path(config), malformed)
    for line in (ratings, *malformed.skipped):
        click.echo(str(line), err=True)
    figures = [measure(config, ratings, name, seeds) for name in names or SPLITS]
    if as_json:
        click.echo(json.dumps([asdict(one) for one in figures], indent=2))
        return
    console = Console(highlight=False)
    for one in figures:
        console.print(*tables(one), sep="\n")


def measure(config: FusionConfig, data: MovieLens, name: SplitName, seeds: int) -> SplitFigures:
    """Measure all methods on one split, the fusion model with `seeds` trainings."""
    console = Console(highlight=False, stderr=True)
    console.print(f"{name}: {SPLITS[name]}", soft_wrap=True)
    parts = split(data, np.arange(len(data.rating)), name, TEST_SHARE, SPLIT_SEED)
    predicted = _simple(data, parts, name, console)
    user, rating = data.user[parts.test], data.rating[parts.test]
    masks = groups(data, parts)
    by_seed: dict[str, list[float]] = {group: [] for group in masks}
    recalls: list[ColdRecall] = []
    first: dict[str, Errors] = {}
    seconds = []
    for seed in range(config.training.seed, config.training.seed + seeds):
        settings = config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})
        begin = time.monotonic()
        with TrainingProgress(console, config.training.epochs) as progress:
            model = fit(settings, data, parts.train, progress)
        seconds.append(time.monotonic() - begin)
        predicted[FUSION] = model.predict(user, data.film[parts.test])
        found = {
            group: errors_of({method: one[mask] for method, one in predicted.items()}, rating[mask], user[mask])
            for group, mask in masks.items()
        }
        first = first or found
        for group, errors in found.items():
            by_seed[group].append(errors.rmse[FUSION].value)
            shown = ", ".join(f"{method} {one.value:.4f}" for method, one in errors.rmse.items())
            console.print(f"seed {seed}, {group}: RMSE {shown}", soft_wrap=True)
        recalls += [cold_recall(data, parts, model)] if name == "user" else []
    recall_by_seed = [one.recall[FUSION].value for one in recalls]
    return SplitFigures(name, first, by_seed, recalls[0] if recalls else None, recall_by_seed, seconds)


def _simple(data: MovieLens, parts: Split, name: SplitName, console: Console) -> dict[str, FloatVector]:
    """Return what the simple methods predict for the test ratings."""
    tuning = split(data, parts.train, name, TUNING_SHARE, SPLIT_SEED + 1)
    factors, penalty = tuned_factorisation(data, tuning.train, tuning.test)
    console.print(f"matrix factorisation: {factors} factors, penalty {penalty:g}")
    factorisation = Factorisation.fit(data, parts.train, factors, penalty)
    return {
        "global mean": global_mean(data, parts.train, parts.test),
        "item mean": item_mean(data, parts.train, parts.test),
        "matrix factorisation": factorisation.predict(data.user[parts.test], data.film[parts.test]),
    }


def tables(figures: SplitFigures) -> list[Table | str]:
    """Return the figures as tables, a line for each method."""
    parts: list[Table | str] = []
    for group, errors in figures.errors.items():
        title = f"{figures.split}, {group}: {errors.ratings:,} ratings of {count(errors.users, 'user')}"
        table = Table("method", "RMSE", "MAE", "worse by", title=title, title_justify="left")
        for method, rmse in errors.rmse.items():
            more = errors.more.get(method)
            table.add_row(
                method,
                f"{rmse.value:.4f} ({rmse.low:.3f} to {rmse.high:.3f})",
                f"{errors.mae[method]:.4f}",
                "" if more is None else f"{more.value:+.4f} ({more.low:+.4f} to {more.high:+.4f})",
            )
        parts += [table, _seeds("RMSE", figures.rmse_by_seed[group])]
    if figures.recall is not None:
        title = f"{figures.split}, lists for {count(figures.recall.users, 'new user')}"
        table = Table("method", f"recall@{LENGTH}", title=title, title_justify="left")
        for method, one in figures.recall.recall.items():
            table.add_row(method, f"{one.value:.2%} ({one.low:.1%} to {one.high:.1%})")
        parts += [table, _seeds(f"recall@{LENGTH}", figures.recall_by_seed)]
    return [*parts, f"seconds of training: {', '.join(f'{one:.0f}' for one in figures.seconds)}"]


def _seeds(name: str, values: Sequence[float]) -> str:
    spread = f"mean {np.mean(values):.4f}, standard deviation {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{name} of {FUSION} by seed: {', '.join(f'{value:.4f}' for value in values)}  {spread}".rstrip()


if __name__ == "__main__":
    main(prog_name="python -m model.fusion.evaluate")
