"""One round of chaos: every scenario on a stage, in random order; in a process of its own for `make chaos`."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from random import Random

import click

from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import Figures, Servers, Stage, servers

#: Seconds that the workers get to answer everything after a scenario.
PATIENCE = 120.0


def start() -> None:
    """Let the main process alone say when to leave: a terminal's Ctrl-C reaches all, and would break off the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("mindstream").setLevel(logging.CRITICAL)  # what librdkafka says of a broker that we have killed


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(130)  # through the servers' and workers' ends


def play_one(
    number: int, folder: Path, seed: int, names: tuple[str, ...], short: bool, sabotage: str | None
) -> list[Figures]:
    """The first round has the long outages; the others differ from it by seed alone."""
    signal.signal(signal.SIGTERM, _leave)
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
            figures.append(stage.seal(name, patience))
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
