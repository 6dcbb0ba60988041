"""What the producers' command lines share: options, errors, signals, progress and the last line."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from configs.errors import EXIT_CONFIG, EXIT_FAILURE, EXIT_TRANSIENT, ConfigError, FatalError, TransientError
from producers.click_log import ClickFileError
from producers.sender import Sender, SendReport
from streams.errors import BadMessage

Command = TypeVar("Command", bound=Callable[..., Any])

#: Most different reasons of failure that the end of a run prints.
REASONS_SHOWN = 5


def config_options(command: Command) -> Command:
    """-c/--config and --set, as in every program of this project."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one setting, for example --set producer.linger=0.05. Repeatable.",
    )(command)
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="YAML file with the settings to change; the shipped configs/kafka.yaml and configs/replay.yaml hold all.",
    )(command)


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Our own errors, which name their remedy, as one line and the exit status that `streams.errors` lists."""
    try:
        yield
    except (BadMessage, ClickFileError) as error:
        raise _failure(error.detail if isinstance(error, BadMessage) else str(error), EXIT_FAILURE) from None
    except TransientError as error:
        raise _failure(str(error), EXIT_TRANSIENT) from None
    except (ConfigError, FatalError) as error:
        raise _failure(str(error), EXIT_CONFIG) from None


def _failure(text: str, status: int) -> click.ClickException:
    failure = click.ClickException(text)
    failure.exit_code = status
    return failure


@contextmanager
def stop_on_signals(sender: Sender) -> Iterator[list[int]]:
    """SIGINT and SIGTERM stop the sender; a second one ends the process at once. Yields the signals received."""
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


@contextmanager
def progress_bar(total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, on a terminal only. Yields a function that takes the number done so far."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda done: progress.update(task, completed=done)


def conclude(report: SendReport, unit: str, signals: list[int], **extra: int) -> None:
    """Prints the account and ends with 0, 1 (something failed), 78 (Kafka refuses it) or 128 + signal (stopped)."""
    for reason, count in report.reasons.most_common(REASONS_SHOWN):
        click.echo(f"failed {count} times: {reason}", err=True)
    counts = {"sent": report.sent, "delivered": report.delivered, "failed": report.failed} | extra
    text = " ".join(f"{name}={count}" for name, count in counts.items())
    click.echo(f"{text} seconds={report.seconds:.2f} {unit}/s={report.rate:.0f}")
    if report.failed:
        click.get_current_context().exit(EXIT_CONFIG if report.refused else EXIT_FAILURE)
    if signals:
        click.get_current_context().exit(128 + signals[0])
