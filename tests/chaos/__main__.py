"""`make chaos`: inject faults into real Kafka and Milvus and a fleet of workers, and audit after each."""

from __future__ import annotations

import json
import multiprocessing
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

import click

from benchmarks.harness.report import Provenance
from configs.cli import Command
from tests.chaos.figures import Figures, table
from tests.chaos.rounds import play_one, prepare_process
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.trips import SABOTAGES

EPILOG = """\b
Examples:
  python -m tests.chaos --rounds 20 --jobs 3
  python -m tests.chaos --scenario zombie --scenario "disk lost" --short
  python -m tests.chaos --scenario "kill: stored" --sabotage "no fence"
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(min=1), help="Number of rounds.")
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rounds at a time; each needs 3 GB of memory.",
)
@click.option("--seed", type=int, help="Seed of victims, moments and the order; by default random. It is printed.")
@click.option(
    "--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only this one; repeatable."
)
@click.option("--short", is_flag=True, help="Keep outages short in the first round, too.")
@click.option("--sabotage", type=click.Choice(SABOTAGES), help="Break a rule of the guarantee; the suite must fail.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to a file, too."
)
def main(
    rounds: int,
    jobs: int,
    seed: int | None,
    names: tuple[str, ...],
    short: bool,
    sabotage: str | None,
    path: Path | None,
) -> None:
    """Play every scenario in each round, in random order.

    Exits with status 1 if an audit fails, or if a worker crashed, had a defect or was slow to exit. In this case the
    folder with the workers' logs is kept; its path is printed.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this process with them ignored
        signal.signal(stop, signal.default_int_handler)  # an exception: servers and workers are stopped
    seed = Random().randrange(10**6) if seed is None else seed
    click.echo(Provenance.capture(shlex.join(["python", "-m", "tests.chaos", *sys.argv[1:]])).to_text())
    click.echo(f"seed     {seed}")
    folder = Path(tempfile.mkdtemp(prefix="mindstream-chaos-"))
    click.echo(f"logs     {folder}")  # first, because a round may raise
    figures: list[Figures] = []
    # One process for each round, with servers of its own.
    with multiprocessing.get_context("spawn").Pool(jobs, prepare_process, maxtasksperchild=1) as pool:
        one = partial(play_one, folder=folder, seed=seed, names=names, short=short, sabotage=sabotage)
        for number, found in enumerate(pool.imap_unordered(one, range(rounds)), 1):
            figures += found
            click.echo(f"{number} of {rounds} rounds played")
            if path is not None:  # after each round, so that an interruption loses only the rounds in progress
                path.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n", encoding="utf-8")
    click.echo(table(sorted(figures, key=lambda f: list(SCENARIOS).index(f.scenario))))
    if not all(f.ok for f in figures):
        click.echo("WRONG")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
