"""The end of a producer's run: signals stop it, and its counts decide its exit status."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from configs.errors import EXIT_CONFIG, EXIT_FAILURE
from configs.text import count
from producers.sender import Sender, SendReport

#: Maximum number of reasons for failed messages that are printed, the most frequent first.
REASONS_SHOWN = 5


@contextmanager
def stop_on_signals(sender: Sender) -> Iterator[list[int]]:
    """Stop the sender on SIGINT or SIGTERM; a second one ends the process immediately. Yields the signals received."""
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        sender.stop.set()
        signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def print_counts_and_exit(report: SendReport, unit: str, signals: list[int], **extra: int) -> None:
    """Print the counts and exit with 0, 1 (a message failed), 78 (Kafka refuses them) or 128 + signal (stopped)."""
    for reason, times in report.reasons.most_common(REASONS_SHOWN):
        click.echo(f"failed {count(times, 'time')}: {reason}", err=True)
    counts = {"sent": report.sent, "delivered": report.delivered, "failed": report.failed} | extra
    text = " ".join(f"{name}={number}" for name, number in counts.items())
    click.echo(f"{text} seconds={report.seconds:.2f} {unit}/s={report.rate:.0f}")
    if report.failed:
        click.get_current_context().exit(EXIT_CONFIG if report.refused else EXIT_FAILURE)
    if signals:
        click.get_current_context().exit(128 + signals[0])
