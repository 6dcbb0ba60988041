"""Generate clicks with known tastes, in AmazonBook's train format: python -m producers.generate --help"""

from __future__ import annotations

import gzip
import lzma
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import click
import numpy as np
import orjson

from configs.cli import Command, progress_bar
from configs.errors import InputError
from producers.synthetic import Shape, SyntheticClicks, generate

__all__ = ["Shape", "SyntheticClicks", "generate", "main", "write_clicks", "write_truth"]

EPILOG = """\b
Examples:
  python -m producers.generate --out clicks.csv
  python -m producers.generate --users 100000 --items 50000 --clicks 1000000 --seed 7 --out clicks.csv.gz
  python -m producers.generate --order time --out stamped.csv --truth truth.npz
  python -m producers.generate --clicks 20000 --drift 0 --out - | head
"""

#: Lines formatted and written at a time.
CHUNK_LINES = 100_000


def write_clicks(
    clicks: SyntheticClicks, path: str, on_progress: Callable[[int], None] = lambda _written: None
) -> None:
    """Write lines ``uid,item_id,order``; ``.gz`` and ``.xz`` are compressed, ``-`` is standard output.

    Raises:
        OSError: the file cannot be written.
    """
    with _open_for_writing(path) as file:
        for begin in range(0, len(clicks.item), CHUNK_LINES):
            part = slice(begin, begin + CHUNK_LINES)
            columns = (clicks.user[part].tolist(), clicks.item[part].tolist(), clicks.order[part].tolist())
            file.write("".join([f"{u},{i},{o}\n" for u, i, o in zip(*columns, strict=True)]).encode())
            on_progress(begin + len(columns[0]))


def write_truth(clicks: SyntheticClicks, path: Path) -> None:
    """Write the tastes behind the clicks as ``.json`` or ``.npz``: all arrays except the clicks."""
    arrays = {
        "item_taste": clicks.item_taste,
        "first_tastes": clicks.first_tastes,
        "last_tastes": clicks.last_tastes,
        "drifts": clicks.drifts,
    }
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # the stub takes the names for other parameters
    else:
        path.write_bytes(orjson.dumps(arrays, option=orjson.OPT_SERIALIZE_NUMPY))


@contextmanager
def _open_for_writing(path: str) -> Iterator[IO[bytes] | gzip.GzipFile | lzma.LZMAFile]:
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.endswith(".gz"):
        # Without file name and time in the header, the same clicks give the same bytes.
        with Path(path).open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            yield packed
    elif path.endswith(".xz"):
        with lzma.open(path, "wb", preset=1) as packed:
            yield packed
    else:
        with Path(path).open("wb") as file:
            yield file


def _check_truth(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (".json", ".npz"):
        raise click.BadParameter(f"{path} must end in .json or .npz")
    return path


@click.command(
    cls=Command,
    epilog=EPILOG,
    less_memory="lower --clicks, --users or --items",
    context_settings={"show_default": True},
)
@click.option("--users", default=10_000, help="Number of users, each with at least one click.")
@click.option("--items", default=5_000, help="Number of items; item 1 is the most frequent one.")
@click.option("--clicks", default=200_000, help="Number of clicks.")
@click.option("--tastes", default=20, help="Number of tastes that the items are divided into.")
@click.option("--tastes-per-user", default=3, help="Active tastes of a user at any time.")
@click.option("--drift", default=0.02, help="Probability, per click, that one taste of its user is replaced.")
@click.option("--order", default="rank", type=click.Choice(["rank", "time"]), help="Third column: rank or unix time.")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="The same seed gives the same file.")
@click.option("--out", required=True, help="File to write; .gz and .xz are compressed, - is standard output.")
@click.option(
    "--truth", type=click.Path(path_type=Path), callback=_check_truth, help="Write the tastes, as .json or .npz."
)
def main(
    users: int,
    items: int,
    clicks: int,
    tastes: int,
    tastes_per_user: int,
    drift: float,
    order: Literal["rank", "time"],
    seed: int,
    out: str,
    truth: Path | None,
) -> None:
    """Generate clicks of users with several, drifting tastes: lines uid,item_id,order."""
    try:
        shape = Shape(users, items, clicks, tastes, tastes_per_user, drift, order)
    except ValueError as error:
        raise InputError(str(error)) from None
    with progress_bar(clicks, "generated") as show:
        made = generate(shape, seed, show)
    try:
        with progress_bar(clicks, "written") as show:
            write_clicks(made, out, show)
        if truth is not None:
            write_truth(made, truth)
    except OSError as error:
        raise InputError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    click.echo(f"clicks={clicks} users={users} items={items} distinct={len(np.unique(made.item))}", err=True)


if __name__ == "__main__":
    main()
