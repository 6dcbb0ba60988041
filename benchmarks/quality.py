"""Quality of variants of the model on real data, beside the best known figures.

The real splits are in the folder MINDSTREAM_DATA and not part of the project.
"""

from __future__ import annotations

import json
import lzma
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy as np

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import Provenance
from configs.cli import Command
from embedded.instance import CHECKOUT
from producers.synthetic import Shape, generate

#: Folder of the trained models; ignored by git.
FOLDER = CHECKOUT / ".mindstream" / "quality"
DATA = "../shared/data"
CONFIGS = "configs"
#: Figures in percent, with seen items kept except in the last one → heads of the table.
FIGURES = {"recall@20": "R@20", "recall@50": "R@50", "hit_rate@50": "HR@50", "ndcg@50": "NDCG@50",
           "unseen_recall@50": "R@50 unseen"}  # fmt: skip
#: The figure that decides, printed with its reference.
DECIDING = "recall@50"
#: Real splits, and a generated one: users with four of 80 disjoint tastes each, whose clicks are interleaved.
SPLITS = ("ml-1m", "video-games")
GENERATED = "generated"
SHAPE = Shape(users=8000, items=4000, clicks=240_000, tastes=80, tastes_per_user=4, drift=0.0)
#: Percent, on test users. "best": for each figure the best that we know, of one vector trained with equal care and of
#: four nearly equal interests. "published": MIND as published, trained with public code (Tokkiu/REMI, commit ad5af060).
#: All were measured in PyTorch with the same protocol.
REFERENCES = {
    "ml-1m": {"best": {"recall@20": 17.74, "recall@50": 31.02, "hit_rate@50": 94.5, "ndcg@50": 24.15,
                       "unseen_recall@50": 35.97},
              "published": {"recall@20": 10.85, "recall@50": 20.75, "hit_rate@50": 85.5, "ndcg@50": 15.68,
                            "unseen_recall@50": 25.2}},
    "video-games": {"best": {"recall@20": 15.68, "recall@50": 24.98, "hit_rate@50": 39.2, "ndcg@50": 9.60,
                             "unseen_recall@50": 25.67},
                    "published": {"recall@20": 9.50, "recall@50": 15.3, "hit_rate@50": 26.0, "ndcg@50": 6.50,
                                  "unseen_recall@50": 15.65}},
}  # fmt: skip
#: Training on one vector, the mean of the history, which takes about half the time, and routing afterwards.
ON_THE_MEAN = (
    "loss.readout=mean",
    "network.routing_map=identity",
    "network.routing_temperature=0.5",
    "network.residual=1",
)
#: Name → configuration file, and overrides.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "default": ("mind.yaml", ()),
    "one vector": ("one-vector.yaml", ()),
    "published": ("mind-paper.yaml", ()),
    # The settings of the reference: on data other than books that code has no layer after the capsules, its softmax is
    # over the clicks, and its initial embeddings have this length.
    "published, public code": (
        "mind-paper.yaml",
        (
            "network.routing_axis=clicks",
            "network.relu=false",
            "network.output_map=identity",
            "network.initial_length=1.41",
        ),
    ),
    "8 dimensions": ("mind.yaml", ("network.dim=8", "network.residual=0")),
    "8 dimensions, one vector": ("one-vector.yaml", ("network.dim=8",)),
}
STANDARD = ("default", "one vector", "published", "published, public code")
#: Name → override: the default with one choice changed, for the table in model/README.md.
ABLATIONS = {
    "residual 0": ("network.residual=0",),
    "residual 0.25": ("network.residual=0.25",),
    "residual 0.75": ("network.residual=0.75",),
    "residual 1": ("network.residual=1",),
    "routing temperature 0.1": ("network.routing_temperature=0.1",),
    "routing temperature 0.5": ("network.routing_temperature=0.5",),
    "no routing map": ("network.routing_map=identity",),
    "learned start": ("network.start=learned",),
    "routing variance 100": ("loss.routing_variance=100",),
    "routing over clicks": ("network.routing_axis=clicks",),
    "interests by history": ("network.interests_by_history=true",),
    "fusion 0": ("network.fusion=0",),
    "fusion 1": ("network.fusion=1",),
    "no output map": ("network.output_map=identity",),
    "no recency weights": ("network.recency=false",),
    "history of 10": ("network.history_length=10",),
    "initial length 1": ("network.initial_length=1",),
    "ReLU": ("network.relu=true",),
    "trained by the largest score": ("loss.fusion=0",),
    "trained on the mean": ON_THE_MEAN,
    "readout hard": ("loss.readout=hard",),
    "readout soft, power 2": ("loss.readout=soft", "loss.power=2"),
    "one target": ("loss.targets=1",),
    "window of all": ("loss.target_window=1.0",),
    "640 negatives": ("loss.negatives=640",),
    "log-uniform negatives": ("loss.distribution=log_uniform",),
    "in-batch negatives": ("loss.distribution=in_batch",),
    "uniform negatives": ("loss.distribution=uniform",),
    "hard negatives, 5": ("loss.hardness=5",),
    "temperature 0.07": ("loss.temperature=0.07",),
    "prefixes from 4": ("training.shortest_history=4",),
    "users alike": ("training.user_power=0",),
    "clicks alike": ("training.user_power=1",),
}
VARIANTS |= {name: ("mind.yaml", overrides) for name, overrides in ABLATIONS.items()}


@dataclass(frozen=True)
class Task:
    """A training of one variant with one seed."""

    variant: str
    split: str
    seed: int


EPILOG = f"""\b
Examples:
  python -m benchmarks.quality --seeds 3
  python -m benchmarks.quality default "trained on the mean" --split ml-1m --on valid
  python -m benchmarks.quality "8 dimensions" "8 dimensions, one vector" --split generated

Variants: {", ".join(VARIANTS)}.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("variants", nargs=-1, type=click.Choice(list(VARIANTS)), metavar="[VARIANT]...")
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice([*SPLITS, GENERATED]),
    help="Default: all real ones.",
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="Trainings of each variant.")
@click.option("--on", default="test", show_default=True, type=click.Choice(["valid", "test"]), help="Users to measure.")
@click.option("--ablations", is_flag=True, help="If no VARIANT is named: all that change one choice of the default.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override for every training, applied before the variant's; repeatable.",
)
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures to this file."
)
def main(
    variants: tuple[str, ...],
    splits: tuple[str, ...],
    seeds: int,
    on: str,
    ablations: bool,
    overrides: tuple[str, ...],
    path: Path | None,
) -> None:
    """Train and measure VARIANTs, by default those of configs/, on both splits; compare them with the references.

    Exit status: 0 the default beats the references, or was not measured on test users; 1 it does not; 2 no data.
    """
    data = Path(os.environ.get("MINDSTREAM_DATA", CHECKOUT / DATA)).resolve()
    chosen = splits or SPLITS
    if GENERATED in chosen:
        generate_split()
    if set(chosen) - {GENERATED} and not data.is_dir():
        click.echo(f"{data}: no data here. Set MINDSTREAM_DATA to a folder with ml-1m-split and video-games-split.")
        sys.exit(2)
    click.echo(Provenance.capture(shlex.join(["python", "-m", "benchmarks.quality", *sys.argv[1:]])).to_text())
    names = variants or (tuple(ABLATIONS) if ablations else STANDARD)
    tasks = [Task(name, split, seed + 1) for name in names for split in chosen for seed in range(seeds)]
    rest = "cosine  clusters  shares of the top 50  seconds   R@50 / best reference"
    click.echo(f"{'split':11} {'variant':34} {'seeds':>5}  {_heads()}   {rest}")
    results: dict[Task, dict[str, Any]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for task, result in zip(tasks, pool.map(lambda task: run(task, data, on, overrides), tasks), strict=True):
            results[task] = result
            if task.seed == seeds:
                click.echo(_line(task, [results[Task(task.variant, task.split, seed + 1)] for seed in range(seeds)]))
    for split in chosen:
        for name, reference in REFERENCES.get(split, {}).items():
            click.echo(f"{split:11} {'reference: ' + name:34} {'':5}  {_figures([reference])}")
    if path is not None:
        rows = [{"variant": t.variant, "split": t.split, "seed": t.seed, "users": on, **r} for t, r in results.items()]
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if on != "test" or default_beats_references(results) else 1)


def generate_split() -> None:
    """Write FOLDER/generated-split in the format of the real ones."""
    clicks = generate(SHAPE, seed=1)
    folder = FOLDER / f"{GENERATED}-split"
    folder.mkdir(parents=True, exist_ok=True)
    digit = clicks.user % 10
    for name, part in (("train", digit < 8), ("valid", digit == 8), ("test", digit == 9)):
        rows = np.column_stack([column[part] for column in (clicks.user, clicks.item, clicks.order)])
        with lzma.open(folder / f"{name}.csv.xz", "wt", preset=0) as file:
            np.savetxt(file, rows, fmt="%d", delimiter=",")


def run(task: Task, data: Path, on: str, overrides: Iterable[str]) -> dict[str, Any]:
    """Train with early stopping on the valid users, then measure the users `on`, "valid" or "test"; return figures."""
    split = (FOLDER if task.split == GENERATED else data) / f"{task.split}-split"
    folder = FOLDER / f"{task.split}-{task.variant}-{task.seed}".replace(" ", "-").replace(",", "")
    file, changed = VARIANTS[task.variant]
    settings = [*overrides, *changed, f"training.seed={task.seed}", f"data.valid_paths=[{split / 'valid.csv.xz'}]"]
    settings += [f"output.runs={FOLDER / 'runs' / folder.name}"]  # two runs may start in the same second
    train = ["model.train", "-c", f"{CONFIGS}/{file}", "--data", str(split / "train.csv.xz"), "--out", str(folder)]
    begin = time.monotonic()
    _python([*train, *(part for setting in settings for part in ("--set", setting))])
    seconds = time.monotonic() - begin
    test = ["model.evaluate", "--artifact", str(folder), "--test", str(split / f"{on}.csv.xz"), "--json"]
    measured = json.loads(_python(test))["models"][0]
    kept, unseen = (
        {lists["n"]: lists for lists in measured["lists"] if lists["seen"] == seen} for seen in ("kept", "filtered")
    )
    figures = {
        f"{name}@{n}": 100 * kept[n]["figures"][name]["mean"] for n in kept for name in ("recall", "hit_rate", "ndcg")
    }
    return figures | {
        "unseen_recall@50": 100 * unseen[50]["figures"]["recall"]["mean"],
        "cosine": measured["cosine"]["mean"],
        "clusters": kept[50]["figures"]["clusters"]["mean"],
        "shares": kept[50]["strongest_shares"],
        "seconds": seconds,
    }


def default_beats_references(results: dict[Task, dict[str, Any]]) -> bool:
    """Return whether the default's mean recall@50 reaches the best reference on each split that was measured."""
    for split in SPLITS:
        found = [
            result[DECIDING] for task, result in results.items() if (task.variant, task.split) == ("default", split)
        ]
        if found and mean(found) < REFERENCES[split]["best"][DECIDING]:
            return False
    return True


def _python(arguments: Sequence[str]) -> str:
    # One thread for each: small matrix products gain nothing from a second one, and two trainings run at the same time.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"python -m {shlex.join(arguments)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _heads() -> str:
    return "".join(f"{head:>14}" for head in FIGURES.values())


def _figures(results: Sequence[dict[str, Any]]) -> str:
    parts = []
    for key in FIGURES:
        values = [result[key] for result in results if key in result]
        spread = f" ± {stdev(values):4.2f}" if len(values) > 1 else ""
        parts.append(f"{mean(values):5.2f}{spread}" if values else "")
    return "".join(f"{part:>14}" for part in parts)


def _line(task: Task, results: Sequence[dict[str, Any]]) -> str:
    shares = " ".join(f"{mean(share):.2f}" for share in zip(*(result["shares"] for result in results), strict=True))
    cosines = [result["cosine"] for result in results if result["cosine"] is not None]
    cosine = f"{mean(cosines):8.3f}" if cosines else f"{'':8}"
    clusters = mean(result["clusters"] for result in results)
    seconds = mean(result["seconds"] for result in results)
    return (
        f"{task.split:11} {task.variant:34} {len(results):5}  {_figures(results)} {cosine}  {clusters:8.1f}  "
        f"{shares:21} {seconds:7.0f}   {_with_reference(task.split, results)}"
    )


def _with_reference(split: str, results: Sequence[dict[str, Any]]) -> str:
    """Return the deciding figure beside its best reference, which was measured on test users."""
    if split not in REFERENCES:
        return ""
    found, best = mean(result[DECIDING] for result in results), REFERENCES[split]["best"][DECIDING]
    return f"{found:.2f} / {best:.2f} = {found / best:.3f} ×"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.quality")
