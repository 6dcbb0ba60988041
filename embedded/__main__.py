"""Command line of the embedded servers: `python -m embedded up | env | status | down | demo | page`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from configs.cli import Group
from embedded.instance import FOLDER
from embedded.stack import Addresses, Flavour, ServerStatus, Stack
from model.data.malformed import Handling
from model.data.reader import Order

#: Exit status of `env` and `status` when nothing runs; 1 is an error, 2 a wrong command line.
NOTHING_RUNS = 3
NOTHING = "Nothing runs. Start the servers: python -m embedded up"

# Standard output has only the export lines, so that `eval "$(python -m embedded up)"` works.
_console = Console(stderr=True, highlight=False)


def _folder(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=FOLDER,
        show_default=".mindstream/embedded in the checkout",
        help="Instance folder: data, logs, state.",
    )(command)


def _click_data(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which clicks are used."""
    data = click.option(
        "--data",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Click file; default: generated clicks.",
    )
    order = click.option(
        "--order",
        type=click.Choice(["auto", "rank", "time"]),
        default="auto",
        show_default=True,
        help="Its third column.",
    )
    malformed = click.option(
        "--malformed",
        type=click.Choice(["fail", "skip"]),
        default="fail",
        show_default=True,
        help="On a malformed line: stop, or skip it.",
    )
    return data(order(malformed(command)))


@click.group(
    cls=Group,
    epilog="""\b
    Examples:
      python -m embedded up                       Kafka and the small Milvus
      python -m embedded up --milvus standalone   … and the real Milvus (Linux x86-64)
      eval "$(python -m embedded up)"             … and point this shell at them
      eval "$(python -m embedded env)"            point another shell at them
      python -m embedded status
      python -m embedded down --wipe              stop, and delete the data
    """,
)
def main() -> None:
    """Run real Kafka and Milvus servers on this machine, for the demo and the tests.

    A server named by MINDSTREAM_KAFKA or MINDSTREAM_MILVUS is used instead of starting one; only the demo always starts
    its own.
    """


@main.command(
    epilog="""\b
    Examples:
      python -m embedded up
      python -m embedded up --milvus none --kafka-port 9092
      python -m embedded up --milvus standalone --dir /tmp/mindstream
    """
)
@click.option(
    "--milvus",
    type=click.Choice(["lite", "standalone", "none"]),
    help="Kind of Milvus. Default: the one that runs or ran last, or else lite. Replaces another kind that runs.",
)
@click.option("--kafka-port", type=click.IntRange(1, 65_535), help="Port of Kafka; default: any free one.")
@click.option("--milvus-port", type=click.IntRange(1, 65_535), help="Port of Milvus; default: any free one.")
@_folder
def up(milvus: Flavour | None, kafka_port: int | None, milvus_port: int | None, folder: Path) -> None:
    """Start the servers that do not run yet, and print their addresses as lines for a shell.

    standalone is the real Milvus, for Linux on x86-64; it requires no password and listens on all network interfaces.
    lite is a small one in Python, reachable only from this machine. The first time, the jars of Kafka are downloaded
    (43 MB) and, for --milvus standalone, the server (58 MB).
    """
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stack = Stack(folder, milvus, kafka_port or 0, milvus_port or 0)
    with _console.status("Looking for running servers …") as spinner:

        def report(line: str) -> None:
            _console.print(line, markup=False, soft_wrap=True)
            spinner.update("Waiting for the servers …")

        addresses = stack.up(report)
    _export(addresses)


@main.command(
    epilog="""\b
    Example:
      eval "$(python -m embedded env)"   point this shell at the servers that another one started
    """
)
@_folder
def env(folder: Path) -> None:
    """Print the addresses of the running servers as lines for a shell. Starts nothing; status 3 if nothing runs."""
    running = {server.name: server.address for server in Stack(folder).status() if server.serves}
    if not running:
        click.echo(NOTHING, err=True)
        sys.exit(NOTHING_RUNS)
    _export(Addresses(running.get("kafka"), running.get("milvus")))


@main.command(
    epilog="""\b
    Examples:
      python -m embedded status
      python -m embedded status || python -m embedded up
    """
)
@_folder
def status(folder: Path) -> None:
    """Show the servers. The exit status is 3 if none runs."""
    servers = Stack(folder).status()
    if servers:
        Console(highlight=False).print(_table(servers))
        click.echo(f"Data and logs: {folder}")
        click.echo('Point a shell at them: eval "$(python -m embedded env)"')
    else:
        click.echo(NOTHING)
    if not any(server.serves for server in servers):
        sys.exit(NOTHING_RUNS)


@main.command(
    epilog="""\b
    Examples:
      python -m embedded down
      python -m embedded down --wipe
    """
)
@click.option("--wipe", is_flag=True, help="Delete the servers' data and logs, too. Downloads are kept.")
@_folder
def down(wipe: bool, folder: Path) -> None:
    """Stop the servers. Their data is kept for the next `up`."""
    with _console.status("Stopping the servers …"):
        Stack(folder).down(wipe, report=lambda line: _console.print(line, markup=False, soft_wrap=True))
    _console.print("Nothing runs any more." + (" The data is deleted." if wipe else ""))


@main.command(
    epilog="""\b
    Examples:
      python -m embedded demo
      python -m embedded demo --data clicks.csv --replay-seconds 30
      python -m embedded demo --milvus lite
    """
)
@_click_data
@click.option("--milvus", type=click.Choice(["lite", "standalone"]), help="Default: standalone where it runs.")
@click.option("--train-seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Training time.")
@click.option("--replay-seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Replay time.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0.1),
    help="Clicks per second; default: by the kind of Milvus.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER.parent / "demo",
    show_default=".mindstream/demo in the checkout",
    help="Folder for servers, model and logs. Files of an earlier demo there are deleted.",
)
def demo(
    data: Path | None,
    order: Order,
    malformed: Handling,
    milvus: Flavour | None,
    train_seconds: float,
    replay_seconds: float,
    rate: float | None,
    folder: Path,
) -> None:
    """Run the whole path on real servers of its own: train, publish items, replay clicks, watch, audit.

    Ends by itself, with exit status 1 if any click is unaccounted for; the servers are then stopped, and their data
    deleted. Variables such as MINDSTREAM_KAFKA are ignored.
    """
    from embedded.demo.run import DemoOptions, run  # Faust, Milvus' client and the model load slowly

    sys.exit(run(DemoOptions(data, order, malformed, milvus, train_seconds, replay_seconds, rate), folder))


@main.command(
    epilog="""\b
    Examples:
      python -m embedded page
      python -m embedded page --data clicks.csv --titles titles.csv
      python -m embedded page --artifact artifacts/latest --port 8080
    """
)
@_click_data
@click.option("--milvus", type=click.Choice(["lite", "standalone"]), help="Default: standalone where it runs.")
@click.option("--train-seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Training time.")
@click.option("--rate", type=click.FloatRange(min=0.1), help="Clicks per second; default: by the kind of Milvus.")
@click.option(
    "--artifact",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A model trained on these clicks; default: one is trained.",
)
@click.option(
    "--titles",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file: item_id,title,category.",
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port of the page; default: any free one.")
@click.option("--open/--no-open", "open_", default=True, show_default=True, help="Open the page where a desktop is.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER.parent / "page",
    show_default=".mindstream/page in the checkout",
    help="Folder for servers, model and logs. It is deleted at the end.",
)
def page(
    data: Path | None,
    order: Order,
    malformed: Handling,
    milvus: Flavour | None,
    train_seconds: float,
    rate: float | None,
    artifact: Path | None,
    titles: Path | None,
    port: int,
    open_: bool,
    folder: Path,
) -> None:
    """Show the page of the recall service, on real servers of its own, while clicks are replayed.

    Runs until Ctrl-C, and then deletes what it has made. Variables such as MINDSTREAM_KAFKA are ignored.
    """
    from embedded.demo.page import REPLAY_S, PageOptions, run_page  # Faust, Milvus' client and the model load slowly
    from embedded.demo.run import DemoOptions

    if folder.exists() and any(folder.iterdir()) and not (folder / "servers").exists():
        raise click.UsageError(f"{folder} has files of something else, and would be deleted; choose another --dir")
    options = DemoOptions(data, order, malformed, milvus, train_seconds, REPLAY_S, rate)
    sys.exit(run_page(options, PageOptions(artifact, titles, port, open_), folder))


def _export(addresses: Addresses) -> None:
    for variable, address in addresses.exports().items():
        click.echo(f"export {variable}={address}")


def _table(servers: list[ServerStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("server", "flavour", "state", "address", "process"):
        table.add_column(title, no_wrap=True)
    for server in servers:
        table.add_row(server.name, server.flavour, server.state, server.address, str(server.pid or ""))
    return table


if __name__ == "__main__":
    main(prog_name="python -m embedded")
