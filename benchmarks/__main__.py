"""Command line of the benchmarks, `python -m benchmarks`: runs and reports them; each is a module of its own."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import Curve, Figure, Provenance, Result, to_json
from configs.cli import Command
from embedded.instance import CHECKOUT

if TYPE_CHECKING:
    from benchmarks.harness.benchmark import Benchmark
    from benchmarks.harness.servers import MilvusKind

#: Default folder of the servers, models and logs; ignored by git.
FOLDER = CHECKOUT / ".mindstream" / "bench"
#: Benchmark → what it measures. The modules load slowly, so `--help` must not need them.
NAMES = {
    "throughput": "clicks per second of one worker, compared with Milvus only, a hand-wired service, and plain Faust",
    "latency": "click → recommendation at 10, 50 and 80 % of the sustained rate of the worker",
    "service": "recommendations over HTTP by clients and users per request, compared with a hand-wired service",
    "freshness": "published item → found by a search, while clicks flow",
    "pressure": "twice the sustained rate of clicks: memory, lag, lost clicks, time to catch up",
    "scaling": "throughput, CPU time and memory by items, users, top-k, history length and number of workers",
    "recall": "recall of the approximate search against the exact one, and its speed, by ef",
    "producers": "items and clicks per second into Kafka",
    "restore": "histories per second from the changelog into an empty store; memory and disk",
    "evaluation": "test users per second through exact search and all metrics; peak memory",
    "encoder": "histories → interest vectors, for a batch, on one thread",
    "training": "samples per second on a table of AmazonBook's size, compared with dense gradients; time share of data",
    "reader": "click files of AmazonBook's size → training arrays, seconds and memory",
}
EPILOG = """\b
Benchmarks:
{names}

\b
Examples:
  python -m benchmarks
  python -m benchmarks throughput latency --milvus standalone
  python -m benchmarks encoder --json encoder.json
  python -m benchmarks pressure recall --plot curves.png
  python -m benchmarks throughput --set throughput.clicks=100000 --set throughput.items=20000

\b
The servers are embedded (python -m embedded --help), unless MINDSTREAM_KAFKA or MINDSTREAM_MILVUS name others.
Exit status: 0 all measured; 1 a benchmark could not be finished; 75 Kafka or Milvus is unavailable; 130 interrupted.
""".format(names="\n".join(f"  {name:10} {title}" for name, title in NAMES.items()))


@click.command(cls=Command, epilog=EPILOG)
@click.argument("names", nargs=-1, type=click.Choice(list(NAMES)), metavar="[NAME]...")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures to this file."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curves into this .png or .svg.")
@click.option("--milvus", type=click.Choice(["lite", "standalone"]), help="Default: standalone where it runs.")
@click.option("--set", "overrides", multiple=True, metavar="NAME.SIZE=N", help="Change a size; repeatable.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=".mindstream/bench in the checkout",
    help="Folder for servers, models and logs while it runs.",
)
def main(
    names: tuple[str, ...],
    path: Path | None,
    plot: Path | None,
    milvus: MilvusKind | None,
    overrides: tuple[str, ...],
    folder: Path,
) -> None:
    """Run the named benchmarks, or all, and print machine, commit, command and figures.

    Figures go to standard output, progress to standard error. Sizes differ between the real Milvus and milvus-lite;
    each result states its sizes.
    """
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # SIGINT, too: a shell starts background commands with it ignored
        signal.signal(number, signal.default_int_handler)
    chosen = tuple(dict.fromkeys(names)) or tuple(NAMES)
    try:
        measure(chosen, path, plot, milvus, overrides, folder)
    except KeyboardInterrupt:
        click.echo("Interrupted; the servers are stopped.", err=True)
        raise


def measure(
    names: Sequence[str],
    path: Path | None,
    plot: Path | None,
    milvus: MilvusKind | None,
    overrides: Sequence[str],
    folder: Path,
) -> None:
    """Run benchmarks one after the other; print, write and draw each result as soon as it is complete.

    Raises:
        MindstreamError: a benchmark could not be finished.
    """
    from benchmarks.harness.servers import BenchmarkServers
    from embedded.standalone import best_flavour

    run = Provenance.capture(shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    kind = milvus or best_flavour()
    benchmarks = {name: load(name) for name in names}
    sizes = {name: dict(benchmark.sizes[kind]) for name, benchmark in benchmarks.items()}
    for override in overrides:
        _apply_override(sizes, override)
    if plot is not None:
        _check_plot(plot, benchmarks)
    click.echo(run.to_text())
    results: list[Result] = []
    _write(path, run, results)  # a path that cannot be written fails now, not after minutes
    with BenchmarkServers(folder, kind, lambda text: click.echo(f"  {text}", err=True)) as servers:
        for name, benchmark in benchmarks.items():
            click.echo(f"▸ {name}: {NAMES[name]}", err=True)
            before = os.getloadavg()[0]
            found = benchmark.run(servers, sizes[name])
            figures = [one for one in found if isinstance(one, Figure)]
            curves = [one for one in found if isinstance(one, Curve)]
            loads = before, os.getloadavg()[0]
            results.append(Result(name, benchmark.servers(kind), sizes[name], figures, *loads, curves))
            click.echo(f"\n{results[-1].to_text()}")
            _write(path, run, results)
            _draw(plot, results)


def load(name: str) -> Benchmark:
    """Import the benchmark with a name in `NAMES`."""
    return cast("Benchmark", import_module(f"benchmarks.{name}").BENCHMARK)


def _write(path: Path | None, run: Provenance, results: Sequence[Result]) -> None:
    if path is None:
        return
    try:
        path.write_text(to_json(run, results), encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}") from None


def _check_plot(path: Path, benchmarks: Mapping[str, Benchmark]) -> None:
    """Check the path and that there is a curve, before anything is measured. Matplotlib is loaded only here."""
    from benchmarks.harness.plot import check

    if not any(benchmark.curves for benchmark in benchmarks.values()):
        have = ", ".join(name for name in NAMES if load(name).curves)
        raise click.BadParameter(f"none of these benchmarks has a curve; these have: {have}", param_hint="--plot")
    check(path)


def _draw(path: Path | None, results: Sequence[Result]) -> None:
    if path is not None:
        from benchmarks.harness.plot import draw

        draw(path, results)


def _apply_override(sizes: dict[str, dict[str, int]], override: str) -> None:
    key, _, value = override.partition("=")
    name, _, size = key.partition(".")
    if size not in sizes.get(name, {}):
        known = ", ".join(f"{name}.{size}" for name, its in sizes.items() for size in its)
        raise click.BadParameter(f"there is no size {key!r}; known: {known}", param_hint="--set")
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{key} must be a whole number from 1, found {value!r}", param_hint="--set")
    sizes[name][size] = int(value)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
