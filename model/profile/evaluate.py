"""Measure the profile tower beside popular items, and its blend with clicks: python -m model.profile.evaluate"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from configs.cli import Command, config_options
from configs.loader import load_profile
from configs.schema import ProfileConfig
from configs.text import count
from model.arrays import DoubleArray
from model.artifact import Artifact
from model.data.clicks import read_clicks
from model.data.malformed import SETTING, MalformedLines
from model.profile.baselines import SHRINKAGES, Popularity
from model.profile.data import ProfiledUsers, UserGroups, read_groups, read_profiles, settings_of, with_profiles
from model.profile.measure import (
    AFTER,
    LENGTH,
    TARGETS,
    EarlyUsers,
    Figure,
    MethodFigures,
    cold_lists,
    cold_values,
    compared,
    first_clicks,
)
from model.serving.profile import ProfileTower

TOWER, INTERESTS, BLEND = "profile", "interests", "blend"
EPILOG = f"""\b
Examples:
  python -m model.profile.evaluate --artifact artifacts/latest --clicks clicks/train.csv --valid clicks/valid.csv \\
    --profiles clicks/profiles.jsonl --test clicks/test.csv --group gender --group age

\b
Test users are new to both models. Without clicks, their first {TARGETS} clicks are the targets, beside popular items:
overall and in the user's group, by all clicks and by each user's first {TARGETS}; valid users decide how far groups are
shrunk to the whole. After {", ".join(map(str, AFTER))} clicks the next {TARGETS} are the targets, for interests only,
the profile only, and the blend. Intervals are 95 % bootstrap intervals over users. Tables go to standard output.
Exit status: 0 measured; 1 a file or an artifact cannot be used; 78 a wrong setting; 130 interrupted.
"""


@dataclass(frozen=True)
class ProfileFigures:
    """Figures of one tower; methods → figures. `early` is by the number of clicks.

    Attributes:
        shrinkage: popularity → chosen shrinkage. weights: number of clicks → weight of the profile in the blend.
    """

    model_version: str
    tower: str
    users: int
    cold: dict[str, MethodFigures]
    shrinkage: dict[str, float]
    early_users: dict[int, int]
    early: dict[int, dict[str, MethodFigures]]
    weights: dict[int, float]


@click.command(cls=Command, epilog=EPILOG)
@config_options(load_profile)
@click.option("--artifact", metavar="DIR", help="Folder of the MIND model; default: model.artifact.")
@click.option("--clicks", multiple=True, metavar="PATH", help="Clicks of training; default: data.clicks.")
@click.option("--valid", multiple=True, metavar="PATH", help="Clicks of valid users; default: data.valid_clicks.")
@click.option("--profiles", multiple=True, metavar="PATH", help="Profiles; repeatable. Default: data.profiles.")
@click.option("--test", "tests", multiple=True, required=True, metavar="PATH", help="Clicks of test users; repeatable.")
@click.option("--group", "names", multiple=True, help="Attribute of groups; repeatable. Default: the first two.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    artifact: str | None,
    clicks: tuple[str, ...],
    valid: tuple[str, ...],
    profiles: tuple[str, ...],
    tests: tuple[str, ...],
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the profile tower on new users: without clicks, beside popular items, and blended with first clicks."""
    given = settings_of(artifact, clicks, valid, profiles)
    config = load_profile(config_path, (*overrides, *given))
    figures = measure(config, tests, names)
    if as_json:
        click.echo(json.dumps(document(figures), indent=2))
        return
    Console(highlight=False).print(*tables(figures), sep="\n")


def measure(config: ProfileConfig, tests: Sequence[str], names: Sequence[str]) -> ProfileFigures:
    """Measure the tower in the folder of the model; `names` are the attributes that make a group.

    Raises:
        ConfigError, DataError, ArtifactError: the input cannot be used; the message names the remedy.
    """
    artifact, malformed = Artifact.load(config.model.artifact), MalformedLines(config.data.malformed, SETTING)
    tower = ProfileTower.load(artifact)
    profiles = read_profiles(config.data.profiles, tower.table.attributes, malformed)
    groups = read_groups(config, profiles, malformed)
    test = with_profiles(read_clicks(tests, malformed, config.data.order), profiles)
    for line in malformed.skipped:
        click.echo(str(line), err=True)
    singles = [one.name for one in tower.table.attributes if one.kind != "categories"]
    cold, shrinkage = _cold(tower, artifact, groups, test, names or singles[:2])
    early = {n: EarlyUsers.after(n, tower, artifact, test) for n in AFTER if (test.clicks.lengths > n).any()}
    return ProfileFigures(
        artifact.model_version,
        tower.manifest["model_version"],
        len(test.profiles),
        cold,
        shrinkage,
        {n: len(one.clicks) for n, one in early.items()},
        {n: _early(one, tower, artifact) for n, one in early.items()},
        {n: float(tower.share(n)) for n in early},
    )


def _cold(
    tower: ProfileTower, artifact: Artifact, groups: UserGroups, test: ProfiledUsers, names: Sequence[str]
) -> tuple[dict[str, MethodFigures], dict[str, float]]:
    """Return the figures of users without clicks, and the shrinkages that were chosen on valid users."""
    n = min(LENGTH, len(artifact.item_ids))
    targets = first_clicks(test.clicks, 0, TARGETS)
    values: dict[str, DoubleArray] = {}
    chosen: dict[str, float] = {}
    for of, number in (("all clicks", None), (f"first {TARGETS} clicks", TARGETS)):
        popularity = Popularity.count(groups.train, artifact, tower.table, names, number)
        values[f"popular, {of}"] = cold_values(popularity.popular(len(test.profiles), n), artifact, targets)
        if not names:
            continue
        shrinkage = _shrinkage(popularity, artifact, groups.valid, n)
        name = f"popular by {' and '.join(names)}, {of}"
        chosen[name] = shrinkage
        values[name] = cold_values(popularity.in_groups(test.profiles, n, shrinkage), artifact, targets)
    values[TOWER] = cold_values(cold_lists(tower, artifact, test), artifact, targets)
    return compared(values, TOWER), chosen


def _shrinkage(popularity: Popularity, artifact: Artifact, valid: ProfiledUsers, n: int) -> float:
    """Return the shrinkage with the highest recall for valid users."""
    targets = first_clicks(valid.clicks, 0, TARGETS)

    def recall(shrinkage: float) -> float:
        rows = popularity.in_groups(valid.profiles, n, shrinkage)
        return float(cold_values(rows, artifact, targets)[:, 0].mean())

    return max(SHRINKAGES, key=recall)


def _early(users: EarlyUsers, tower: ProfileTower, artifact: Artifact) -> dict[str, MethodFigures]:
    """Return the figures of users with a few clicks; the blend is compared with the others."""
    profile_only = np.repeat(users.vectors[:, None], users.interests.shape[1], axis=1)
    queries = {INTERESTS: users.interests, TOWER: profile_only, BLEND: users.blended(tower)}
    return compared({name: users.values(one, artifact) for name, one in queries.items()}, BLEND)


def document(figures: ProfileFigures) -> dict[str, Any]:
    """Return the figures as JSON values."""

    def methods(of: dict[str, MethodFigures]) -> dict[str, Any]:
        return {name: {key: one._asdict() for key, one in figure._asdict().items()} for name, figure in of.items()}

    early = {str(n): methods(one) for n, one in figures.early.items()}
    return {**vars(figures), "cold": methods(figures.cold), "early": early}


def tables(figures: ProfileFigures) -> list[Table | str]:
    """Return the figures as tables, a line for each method."""
    title = f"{count(figures.users, 'user')} without clicks; their first {TARGETS} clicks are wanted"
    shrinkage = "\n".join(f"{name}: shrunk by {value:,.0f} clicks" for name, value in figures.shrinkage.items())
    parts: list[Table | str] = [_table(title, figures.cold, TOWER), *([shrinkage] if shrinkage else [])]
    for n, methods in figures.early.items():
        title = (
            f"{count(figures.early_users[n], 'user')} after {count(n, 'click')}; weight of the profile in the blend "
        )
        parts.append(_table(f"{title}{figures.weights[n]:.0%}", methods, BLEND))
    return parts


def _table(title: str, methods: dict[str, MethodFigures], compared_with: str) -> Table:
    better = f"{compared_with} better by"
    table = Table("method", f"recall@{LENGTH}", better, f"ndcg@{LENGTH}", better, title=title, title_justify="left")
    for name, one in methods.items():
        own = name == compared_with
        table.add_row(
            name,
            f"{one.recall.mean:.2%} ({one.recall.low:.1%} to {one.recall.high:.1%})",
            "" if own else _difference(one.more_recall),
            f"{one.ndcg.mean:.2%}",
            "" if own else _difference(one.more_ndcg),
        )
    return table


def _difference(figure: Figure) -> str:
    return f"{100 * figure.mean:+.2f} ({100 * figure.low:+.2f} to {100 * figure.high:+.2f})"


if __name__ == "__main__":
    main(prog_name="python -m model.profile.evaluate")
