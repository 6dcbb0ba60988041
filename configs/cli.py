"""Base of all command-line programs: settings, errors, exit statuses, progress.

Every program is defined like this:

    @click.command(cls=Command)        # a group of commands: @click.group(cls=Group)
    @configured(load_worker)           # -c and --set; passes the settings as `config`
    def main(config: WorkerConfig) -> None: ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from configs.errors import EXIT_INTERRUPTED, FatalError, MindstreamError, TransientError
from configs.loader import load_fusion, load_profile, load_replay, load_service, load_train, load_worker

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: Loader → the shipped files that hold all of its keys, and an example for --set.
_SHIPPED: dict[Callable[..., Any], tuple[str, str]] = {
    load_worker: ("configs/kafka.yaml and configs/worker.yaml", "recall.top_k=20"),
    load_service: ("configs/kafka.yaml, configs/worker.yaml and configs/service.yaml", "service.port=8081"),
    load_replay: ("configs/kafka.yaml and configs/replay.yaml", "producer.linger=0.05"),
    load_train: ("configs/mind.yaml", "training.epochs=5"),
    load_fusion: ("configs/fusion.yaml", "training.epochs=2"),
    load_profile: ("configs/profile.yaml", "training.epochs=20"),
}
#: System of a `TransientError` → the key of its address.
_ADDRESS_KEYS = {"Kafka": "kafka.bootstrap_servers", "Milvus": "milvus.uri"}


class Command(click.Command):
    """A command that accepts -h and ends with the exit statuses of `configs.errors`.

    A `MindstreamError` becomes one message on standard error and the exit status of its class; Ctrl-C becomes 130, and
    too little memory 78.

    Args:
        less_memory: how to make the program need less memory.
    """

    def __init__(self, *, less_memory: str = "ask for less, or use a larger machine", **attributes: Any) -> None:
        self.less_memory = less_memory
        settings = attributes.pop("context_settings", None) or {}
        super().__init__(context_settings={"help_option_names": ["-h", "--help"]} | settings, **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MindstreamError as error:
            raise _Failure(error) from None
        except MemoryError as error:
            raise _Failure(FatalError(f"too little memory: {error or 'none is left'}; {self.less_memory}")) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


class Group(Command, click.Group):
    """A group whose commands are `Command`s."""

    command_class = Command
    group_class = type


class _Failure(click.ClickException):
    def __init__(self, error: MindstreamError) -> None:
        super().__init__(_message(error))
        self.exit_code = error.exit_status


def _message(error: MindstreamError) -> str:
    """Return the text of the error.

    If a server is unavailable, it names the address to check. If it names a command, the hint of the container follows.
    """
    text = str(error)
    if isinstance(error, TransientError) and (key := _ADDRESS_KEYS[error.system]) not in text:
        text += f"; is it running, and is {key} its address? Embedded servers: python -m embedded status"
    # docker-compose.yml says how to run the commands there.
    if (hint := os.environ.get("MINDSTREAM_HINT")) and "python -m" in text:
        text += f"\n{hint}"
    return text


def config_options(load: Callable[..., Any]) -> Callable[[Decorated], Decorated]:
    """Add -c/--config and --set, passed as `config_path` and `overrides`: the first arguments of `load`.

    Args:
        load: `load_worker` or another function of `configs.loader`; its files are named in the help.
    """
    files, example = _SHIPPED[load]

    def decorate(command: Decorated) -> Decorated:
        command = click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"Override one key, for example {example}; repeatable.",
        )(command)
        return click.option(
            "-c",
            "--config",
            "config_path",
            type=click.Path(path_type=Path),
            help=f"YAML file with the keys to change; all keys are in {files}.",
        )(command)

    return decorate


def configured(load: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add -c/--config and --set, and pass the settings that `load` returns as `config`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @config_options(load)
        @wraps(command)
        def wrapped(config_path: Path | None, overrides: tuple[str, ...], **kwargs: Any) -> Any:
            return command(config=load(config_path, overrides), **kwargs)

        return wrapped

    return decorate


class ProgressBar:
    """A bar that shows how much of a total is done: call it with the number done so far, or `advance` it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def advance(self, number: int) -> None:
        """Count `number` more as done."""
        self._progress.advance(self._task, number)


@contextmanager
def progress_bar(total: int | None, unit: str) -> Iterator[ProgressBar]:
    """Show a bar on standard error if that is a terminal. `total` is None if it is unknown."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield ProgressBar(progress, progress.add_task(unit, total=total))
