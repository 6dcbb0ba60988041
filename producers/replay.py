"""Replay clicks from files into Kafka: python -m producers.replay --help"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

from configs.cli import Command, config_options, progress_bar
from configs.loader import load_replay
from configs.schema import Replay, ReplayConfig
from model.data.files import DataError
from model.data.malformed import MalformedLines
from producers.cli import print_counts_and_exit, stop_on_signals
from producers.click_log import ClickLog, in_time_order, read_click_log
from producers.sender import Sender, SendReport, send_all
from streams.messages.clicks import Click, encode_click, user_key

EPILOG = """\b
Examples:
  python -m producers.replay clicks.csv                       as fast as Kafka accepts them
  python -m producers.replay train.csv.xz --rate 2000         2,000 clicks per second
  python -m producers.replay stamped.csv.gz --speedup 3600    an hour per second
  python -m producers.replay clicks.csv --loop --limit 1000000
  python -m producers.generate --clicks 1000 --out - | python -m producers.replay -

\b
Exit status: 0 all clicks delivered; 1 a malformed line (unless such lines are skipped and others are clicks), or some
clicks not delivered; 75 Kafka is unavailable; 78 the configuration cannot work, or Kafka refuses this client; 130, 143
stopped by SIGINT, SIGTERM.
"""

#: Clicks converted to Python objects at a time.
CHUNK_CLICKS = 10_000


def messages(log: ClickLog, settings: Replay, sender: Sender) -> Iterator[tuple[bytes, bytes]]:
    """Yield the click messages of `log`, in its order, each when it is due; end early when the sender is stopped.

    With `settings.loop` and time stamps, each pass starts one second after the last click of the previous pass.

    Raises:
        DataError: `speedup` or `original_ts` without time stamps.
    """
    if not log.timed and (settings.speedup is not None or settings.original_ts):
        wanted = "--speedup" if settings.speedup is not None else "--original-ts"
        raise DataError(f"{wanted} needs time stamps, and these files have ranks; use --rate")
    if not len(log):
        return
    first, span = float(log.order[0]), float(log.order[-1] - log.order[0]) + 1.0
    start = time.monotonic()
    sent = passes = 0
    while passes == 0 or settings.loop:
        for user_id, item_id, order in _click_rows(log):
            if sent == settings.limit:
                return
            stamp = order + passes * span
            due: float | None
            if settings.rate is not None:
                due = start + sent / settings.rate
            elif settings.speedup is not None:
                due = start + (stamp - first) / settings.speedup
            else:
                due = None
            if due is not None and not sender.wait_until(due):
                return
            ts = stamp if settings.original_ts else time.time()
            yield user_key(user_id), encode_click(Click(user_id, item_id, ts))
            sent += 1
        passes += 1


def replay(
    log: ClickLog,
    config: ReplayConfig,
    sender: Sender,
    on_progress: Callable[[SendReport], None] = lambda _report: None,
) -> SendReport:
    """Send the clicks of `log` in time order and wait for the acknowledgements.

    Raises:
        DataError: the settings need time stamps, and the files have none.
        TransientError, FatalError: as `Sender.connect` and `Sender.send`.
    """
    in_order = in_time_order(log, config.replay.seed)
    sender.connect()
    return send_all(sender, messages(in_order, config.replay, sender), on_progress)


def clicks_sender(config: ReplayConfig) -> Sender:
    """Return a sender to the topic `clicks`."""
    return Sender(config.kafka, config.producer, config.topics, config.topics.clicks)


def _click_rows(log: ClickLog) -> Iterator[tuple[int | str, int, float]]:
    ids = log.user_ids
    for begin in range(0, len(log), CHUNK_CLICKS):
        part = log.take(np.arange(begin, min(begin + CHUNK_CLICKS, len(log))))
        for user, item, order in zip(part.user.tolist(), part.item.tolist(), part.order.tolist(), strict=True):
            yield ids[user], item, order


@click.command(cls=Command, epilog=EPILOG, less_memory="replay fewer or smaller files at a time")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@config_options(load_replay)
@click.option("--rate", type=float, help="Clicks per second.")
@click.option("--speedup", type=float, help="Follow the time stamps of the files, this many times faster.")
@click.option("--limit", type=int, help="Number of clicks to send.")
@click.option("--loop/--no-loop", default=None, help="Start again at the end of the files.")
@click.option("--order", type=click.Choice(["auto", "rank", "time"]), help="Meaning of the third column.")
@click.option(
    "--original-ts/--send-ts", default=None, help="Time stamp of a click: from the file, or the time of sending."
)
@click.option("--malformed", type=click.Choice(["fail", "skip"]), help="On a malformed line: stop, or skip it.")
def main(files: tuple[str, ...], config_path: Path | None, overrides: tuple[str, ...], **flags: object) -> None:
    """Send the clicks of FILES to Kafka in time order, keyed by user. `-` is standard input.

    FILES have lines `uid,item_id,order` (order: a rank within the user, or seconds since 1970) or lines
    `user_id:… hist_item:… eval_item:…`; names may end in .gz or .xz. Users of files with ranks are
    interleaved, and each user's order is kept. The options below override the section `replay` of the configuration.
    """
    config = load_replay(config_path, (*overrides, *_as_overrides(flags)))
    sender = clicks_sender(config)
    sender.connect()  # before reading the files, which can take a minute
    malformed = MalformedLines(config.replay.malformed, "--{} {}")
    click.echo(f"reading {', '.join(files)}", err=True)
    log = read_click_log(files, malformed, config.replay.order)
    for skipped in malformed.skipped:
        click.echo(skipped, err=True)
    total = config.replay.limit or (None if config.replay.loop else len(log))
    with stop_on_signals(sender) as signals, progress_bar(total, "clicks") as show:
        report = replay(log, config, sender, lambda report: show(report.delivered))
    print_counts_and_exit(report, "clicks", signals, malformed=malformed.total)


def _as_overrides(flags: dict[str, object]) -> list[str]:
    """Return the flags as overrides of the section `replay`, which are checked like any other setting."""
    given = {name: value for name, value in flags.items() if value is not None}
    # A pace given on the command line replaces the other kind in the configuration.
    for pace, other in (("rate", "speedup"), ("speedup", "rate")):
        if pace in given and other not in given:
            given[other] = "null"
    return [f"replay.{name}={str(value).lower()}" for name, value in given.items()]


if __name__ == "__main__":
    main()
