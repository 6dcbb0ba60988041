"""Train the profile tower of a MIND model: python -m model.profile -c configs/profile-movielens.yaml --clicks FILE…"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
from rich.console import Console

from configs.cli import Command, config_options
from configs.errors import ConfigError
from configs.loader import load_profile
from configs.schema import ProfileConfig
from configs.text import count
from model.artifact import Artifact
from model.data.files import DataError
from model.data.malformed import SETTING, MalformedLines
from model.profile.data import known_users, learn_attributes, read_groups, read_profiles, settings_of
from model.profile.measure import AFTER, choose_pseudo_clicks, cold_quality
from model.profile.training import Examples, Weights, fit
from model.serving.attributes import AttributeTable
from model.serving.profile import ProfileTower, save_tower
from model.training.backend import paddle
from model.training.progress import TrainingProgress
from model.training.signals import StopSignals

EPILOG = """\b
Examples:
  python -m producers.movielens --data ml-1m --held-out 0.1 --out clicks
  python -m model.train --data clicks/train.csv --set 'data.valid_paths=[clicks/valid.csv]' --out artifacts/latest
  python -m model.profile -c configs/profile-movielens.yaml --artifact artifacts/latest --clicks clicks/train.csv \\
    --valid clicks/valid.csv --profiles clicks/profiles.jsonl

\b
The MIND model is not changed; the tower is written into its folder, and belongs to this version of it. Valid users
decide when training ends, and how many clicks a profile counts as. Then: python -m model.profile.evaluate. Exit status:
0 the tower is written; 1 a file cannot be used, or the training diverged; 78 a wrong setting; 130 or 143 stopped by
Ctrl-C or SIGTERM.
"""


@click.command(cls=Command, epilog=EPILOG, less_memory="lower training.batch_size or loss.negatives")
@config_options(load_profile)
@click.option("--artifact", metavar="DIR", help="Folder of the MIND model; default: model.artifact.")
@click.option("--clicks", multiple=True, metavar="PATH", help="Click file; repeatable. Default: data.clicks.")
@click.option("--valid", multiple=True, metavar="PATH", help="Clicks of valid users; default: data.valid_clicks.")
@click.option("--profiles", multiple=True, metavar="PATH", help="Profiles; repeatable. Default: data.profiles.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    artifact: str | None,
    clicks: tuple[str, ...],
    valid: tuple[str, ...],
    profiles: tuple[str, ...],
) -> None:
    """Train the profile tower: a user's attributes become a vector in the item space of a trained MIND model."""
    given = settings_of(artifact, clicks, valid, profiles)
    paddle.disable_signal_handler()  # `StopSignals` handles Ctrl-C and SIGTERM
    with StopSignals().installed() as stop:
        try:
            train(load_profile(config_path, (*overrides, *given)), Console(highlight=False))
        except KeyboardInterrupt:
            click.echo("Stopped; no tower was written.", err=True)
            sys.exit(stop.status)


def train(config: ProfileConfig, console: Console) -> ProfileTower:
    """Run one training, from the files to the stored tower.

    Raises:
        ConfigError, DataError, ArtifactError: the input cannot be used; the message names the remedy.
        DivergenceError: see `fit`; no tower is written.
    """
    start = time.monotonic()
    if not config.data.attributes:
        raise ConfigError(
            "data.attributes: no attributes: name those that the tower reads in a file, and give it with -c, such as "
            "configs/profile-movielens.yaml"
        )
    artifact, malformed = Artifact.load(config.model.artifact), MalformedLines(config.data.malformed, SETTING)
    profiles = read_profiles(config.data.profiles, config.data.attributes, malformed)
    users, valid = read_groups(config, profiles, malformed)
    users = known_users(users, artifact)
    if not users.profiles:
        raise DataError(f"no item of the click files is known to the model in {artifact.path}: compare the item ids")
    table = AttributeTable(learn_attributes(config.data.attributes, users.profiles, config.data.min_users))
    sizes = ", ".join(f"{one.name} {one.size - 1}" for one in table.attributes)
    groups = f"{count(len(users.profiles), 'user')}, {count(len(valid.profiles), 'valid user')}"
    for line in (f"{groups}; values of attributes: {sizes}", *malformed.skipped):
        console.print(str(line), soft_wrap=True, markup=False)

    unit = bool(artifact.encoder["normalise"])

    def measure(weights: Weights) -> dict[str, float]:
        return cold_quality(ProfileTower(table, weights, unit, 1.0, {}), artifact, valid)

    with TrainingProgress(console, config.training.epochs) as progress:
        examples = Examples.from_users(users, table, artifact, config.loss.targets)
        weights, metrics = fit(config, artifact, table, examples, measure, progress)
    draft = ProfileTower(table, weights, unit, 1.0, {})
    choice = choose_pseudo_clicks(draft, artifact, valid)
    chosen = ProfileTower(table, weights, unit, choice.pseudo_clicks, {})
    tower = save_tower(artifact, chosen, config.model_dump(mode="json"), metrics)
    seconds = time.monotonic() - start
    figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    console.print(
        f"{figures} of valid users without clicks\n{blend_text(tower)}\ntower {tower.manifest['model_version']} of "
        f"model {artifact.model_version}: {seconds:.0f} s, in {artifact.path}",
        soft_wrap=True,
    )
    return tower


def blend_text(tower: ProfileTower) -> str:
    """Return how much the profile counts beside clicks, for people."""
    shares = ", ".join(f"{tower.share(n):.0%} beside {count(n, 'click')}" for n in AFTER)
    return f"a profile counts as {count_of(tower.pseudo_clicks)}: {shares}"


def count_of(clicks: float) -> str:
    """Return a number of clicks that need not be whole, for people."""
    return f"{clicks:g} " + ("click" if clicks == 1 else "clicks")


if __name__ == "__main__":
    main(prog_name="python -m model.profile")
