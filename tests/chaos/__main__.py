"""`make chaos`: faults against real Kafka and Milvus with a fleet of workers, each followed by the audit."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shlex
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

import click

from benchmarks.report import Run
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import Figures, Servers, Stage, servers, table
from tests.chaos.trips import SABOTAGES

#: Seconds that the workers get to answer everything after a scenario.
PATIENCE = 120.0

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
    logs of the workers is kept then, and its name is printed.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):  # also where a shell has started us with them ignored
        signal.signal(ending, signal.default_int_handler)  # leaves through the servers' and workers' ends
    seed = Random().randrange(10**6) if seed is None else seed
    click.echo(Run.of_now(shlex.join(["python", "-m", "tests.chaos", *sys.argv[1:]])).to_text())
    click.echo(f"seed     {seed}")
    folder = Path(tempfile.mkdtemp(prefix="mindstream-chaos-"))
    figures: list[Figures] = []
    # A process for each round: it has servers of its own, and ends with them.
    with multiprocessing.get_context("spawn").Pool(jobs, _start, maxtasksperchild=1) as pool:
        one = partial(_round, folder=folder, seed=seed, names=names, short=short, sabotage=sabotage)
        for number, found in enumerate(pool.imap_unordered(one, range(rounds)), 1):
            figures += found
            click.echo(f"{number} of {rounds} rounds played")
            if path is not None:  # after each round: hours of playing outlast an interruption
                path.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n", encoding="utf-8")
    click.echo(table(sorted(figures, key=lambda f: list(SCENARIOS).index(f.scenario))))
    if not all(f.ok for f in figures):
        click.echo(f"WRONG; logs: {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


def _start() -> None:
    """Let the main process alone say when to leave: a terminal's Ctrl-C reaches all, and would break off the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    logging.getLogger("mindstream").setLevel(logging.CRITICAL)  # what librdkafka says of a broker that we have killed


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _round(
    number: int, folder: Path, seed: int, names: tuple[str, ...], short: bool, sabotage: str | None
) -> list[Figures]:
    """The first round has the long outages; the others differ from it by seed alone."""
    with servers(folder / f"servers-{number}") as running:
        return play(running, folder / f"round-{number}", seed + number, names, short or number > 0, sabotage)


def play(
    running: Servers,
    folder: Path,
    seed: int,
    names: tuple[str, ...],
    short: bool,
    sabotage: str | None = None,
    patience: float = PATIENCE,
) -> list[Figures]:
    """One round. Ends with the first scenario that goes wrong; the audit gets `patience` seconds to balance."""
    order = list(names or SCENARIOS)
    Random(seed).shuffle(order)
    figures: list[Figures] = []
    with Stage(running, folder, seed, short=short, sabotage=sabotage) as stage:
        for name in order:
            started = time.monotonic()
            stage.begin()
            SCENARIOS[name](stage)
            figures.append(stage.settle(name, patience))
            f = figures[-1]
            click.echo(
                f"{'ok' if f.ok else 'WRONG':5} {name}: {f.clicks:,} clicks, ends {f.ends}, "
                f"pause {f.longest_pause:.1f} s, caught up in {f.catch_up:.1f} s, "
                f"{time.monotonic() - started:.0f} s in all"
            )
            if not f.ok:
                click.echo("\n".join(f.wrong))
                break
    return figures


if __name__ == "__main__":
    main()
