"""`make chaos`: faults against real Kafka and Milvus with a fleet of workers, each followed by the audit."""

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
from tests.chaos.rounds import play_one, start
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import Figures, table
from tests.chaos.trips import SABOTAGES

EPILOG = """\b
Examples:
  python -m tests.chaos --rounds 20 --jobs 3
  python -m tests.chaos --scenario zombie --scenario "disk lost" --short
  python -m tests.chaos --scenario "kill: stored" --sabotage "no fence"
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(min=1), help="Times that all are played.")
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Rounds at a time, 3 GB of memory each."
)
@click.option("--seed", type=int, help="Chooses victims, moments and the order; printed when not given.")
@click.option("--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only these; repeatable.")
@click.option("--short", is_flag=True, help="Short outages in the first round, too.")
@click.option("--sabotage", type=click.Choice(SABOTAGES), help="Break a rule of the guarantee: the suite must fail.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, too.")
def main(
    rounds: int,
    jobs: int,
    seed: int | None,
    names: tuple[str, ...],
    short: bool,
    sabotage: str | None,
    path: Path | None,
) -> None:
    """Play every scenario in each round, in random order; exit status 1 when an audit does not balance.

    So it is when a worker crashed, had a defect or was slow to leave, although nothing was lost. The folder with the
    logs of the workers, whose name is printed, is kept then.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):  # also where a shell has started us with them ignored
        signal.signal(ending, signal.default_int_handler)  # leaves through the servers' and workers' ends
    seed = Random().randrange(10**6) if seed is None else seed
    click.echo(Provenance.capture(shlex.join(["python", "-m", "tests.chaos", *sys.argv[1:]])).to_text())
    click.echo(f"seed     {seed}")
    folder = Path(tempfile.mkdtemp(prefix="mindstream-chaos-"))
    click.echo(f"logs     {folder}")  # also where a round ends with an exception
    figures: list[Figures] = []
    # A process for each round: it has servers of its own, and ends with them.
    with multiprocessing.get_context("spawn").Pool(jobs, start, maxtasksperchild=1) as pool:
        one = partial(play_one, folder=folder, seed=seed, names=names, short=short, sabotage=sabotage)
        for number, found in enumerate(pool.imap_unordered(one, range(rounds)), 1):
            figures += found
            click.echo(f"{number} of {rounds} rounds played")
            if path is not None:  # after each round: hours of playing outlast an interruption
                path.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n", encoding="utf-8")
    click.echo(table(sorted(figures, key=lambda f: list(SCENARIOS).index(f.scenario))))
    if not all(f.ok for f in figures):
        click.echo("WRONG")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
