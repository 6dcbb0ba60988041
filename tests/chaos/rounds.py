"""One round of chaos: every scenario, in random order. `make chaos` plays each round in a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from random import Random

import click

from tests.chaos.figures import Figures
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.servers import Servers, servers
from tests.chaos.stage import Stage

#: Seconds after a scenario within which the workers must have answered everything.
AUDIT_TIMEOUT_S = 120.0


def prepare_process() -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes: the main process stops the others, by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("mindstream").setLevel(logging.CRITICAL)  # librdkafka reports every broker that is killed


def _exit(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(130)  # an exception: servers and workers are stopped


def play_one(
    number: int, folder: Path, seed: int, names: tuple[str, ...], short: bool, sabotage: str | None
) -> list[Figures]:
    """Play one round on servers of its own. Outages are long in round 0, unless `short`, and short in the others."""
    signal.signal(signal.SIGTERM, _exit)
    with servers(folder / f"servers-{number}") as running:
        return play(running, folder / f"round-{number}", seed + number, names, short or number > 0, sabotage)


def play(
    running: Servers,
    folder: Path,
    seed: int,
    names: tuple[str, ...],
    short: bool,
    sabotage: str | None = None,
    timeout_s: float = AUDIT_TIMEOUT_S,
) -> list[Figures]:
    """Play one round, up to the first scenario that goes wrong; the audit must succeed within `timeout_s`."""
    order = list(names or SCENARIOS)
    Random(seed).shuffle(order)
    figures: list[Figures] = []
    with Stage(running, folder, seed, short=short, sabotage=sabotage) as stage:
        for name in order:
            started = time.monotonic()
            stage.begin()
            unmet = ""
            try:
                SCENARIOS[name](stage)
            except AssertionError as error:  # the other rounds go on
                unmet = str(error)
            figures.append(stage.finish(name, timeout_s, unmet))
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
