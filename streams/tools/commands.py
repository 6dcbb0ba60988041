"""The commands for people: tail, audit, export, and list, show and replay dead letters.

Kafka's client and the tools are imported inside the commands: `--help` does not wait for them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from configs.cli import Command, Group, configured
from configs.errors import EXIT_FAILURE
from configs.loader import load_worker
from configs.schema import WorkerConfig
from streams.errors import Reason


@click.command(
    cls=Command, epilog="\b\nExamples:\n  python -m streams tail\n  python -m streams tail --json --user 42 | head -3"
)
@configured(load_worker)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, as on the topic.")
@click.option("--user", "users", multiple=True, help="Only this user's recommendations; repeatable.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest recommendation that Kafka retains.")
@click.option("--limit", type=click.IntRange(min=1), help="End after this many recommendations.")
def tail(config: WorkerConfig, as_json: bool, users: tuple[str, ...], from_beginning: bool, limit: int | None) -> None:
    """Show recommendations as they are written."""
    from streams.tools.tail import tail as show

    show(config, as_json=as_json, users=users, from_beginning=from_beginning, limit=limit)


@click.command(cls=Command, epilog="\b\nExamples:\n  python -m streams audit\n  python -m streams audit --json")
@configured(load_worker)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
@click.option("--no-items", is_flag=True, help="Do not compare Milvus with the topic of items.")
def audit(config: WorkerConfig, as_json: bool, no_items: bool) -> None:
    """Recompute from the clicks what the worker must have written, and compare it with what it wrote.

    Reads all topics from their beginning, and the sources of all rows in Milvus. The workers must have caught up. Where
    retention has deleted the oldest clicks, the rest is compared. Exits with status 1 on any finding.
    """
    from streams.tools.audit import audit_kafka

    report = audit_kafka(config, items=not no_items)
    click.echo(report.to_json() if as_json else report.to_text())
    sys.exit(0 if report.ok else EXIT_FAILURE)


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  python -m streams export -o lists.jsonl
  python -m streams export --format parquet -o lists.parquet
  python -m streams export | gzip > lists.jsonl.gz""",
)
@configured(load_worker)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "parquet"]),
    default="jsonl",
    show_default=True,
    help="jsonl: the messages as on the topic, one on a line. parquet: a column for each property; needs pyarrow.",
)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; it appears when it is complete. Default: standard output, for jsonl only.",
)
def export(config: WorkerConfig, form: Any, path: Path | None) -> None:
    """Write the newest recommendations of all users to a file.

    Reads the topic of recommendations to its present end. Of each user's messages, the one with the highest
    source.offset is written; the users are in the order of the bytes of their ids. Memory stays bounded: the newest
    messages are collected in a temporary file beside the output, or in the system's folder for temporary files, which
    grows to their size. Malformed messages are left out, and counted in the last line, on standard error.
    """
    from streams.tools.export import export as write

    if form == "parquet" and path is None:
        raise click.UsageError("--format parquet needs a file: -o FILE")
    report = write(config, form, path)
    click.echo(report.to_text(str(path or "standard output")), err=True)


@click.group(cls=Group)
def deadletters() -> None:
    """List, show and replay messages that could not be processed."""


def _message_ref(_context: click.Context, _option: click.Parameter, given: Any) -> Any:
    from streams.messages.dead_letters import MessageRef

    try:
        return MessageRef.parse(given) if isinstance(given, str) else tuple(MessageRef.parse(text) for text in given)
    except ValueError:
        raise click.BadParameter("expected topic/partition/offset, as `list` prints it") from None


def _time(_context: click.Context, _option: click.Parameter, given: str | None) -> float | None:
    from streams.tools.dead_letters import parse_time

    try:
        return None if given is None else parse_time(given, time.time())
    except ValueError:
        raise click.BadParameter(f"{given!r} is not a time; write 2026-05-01T12:00 or 30m, 2h, 1d (ago)") from None


def _selected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters, passed as `selection`, and --limit, passed as `limit`."""

    @click.option("--reason", "reasons", multiple=True, type=click.Choice(get_args(Reason)), help="Repeatable.")
    @click.option("--topic", "topics", multiple=True, help="Topic of the original message; repeatable.")
    @click.option("--since", callback=_time, metavar="TIME", help="Not before: 2026-05-01T12:00, or 30m, 2h, 1d ago.")
    @click.option("--until", callback=_time, metavar="TIME", help="Not after.")
    @click.option(
        "--limit", type=click.IntRange(min=1), help="At most this many; list: the newest, replay: the oldest."
    )
    @wraps(command)
    def wrapped(
        reasons: tuple[str, ...],
        topics: tuple[str, ...],
        since: float | None,
        until: float | None,
        refs: tuple[Any, ...] = (),
        **kwargs: Any,
    ) -> Any:
        from streams.tools.dead_letters import Selection

        return command(selection=Selection(reasons, topics, since, until, refs), **kwargs)

    return wrapped


@deadletters.command(
    "list",
    epilog="""\b
Examples:
  python -m streams deadletters list
  python -m streams deadletters list --reason not_json --reason bad_key --since 2h
  python -m streams deadletters list --topic clicks --limit 20 --json""",
)
@configured(load_worker)
@_selected
@click.option(
    "--json", "as_json", is_flag=True, help='Print one JSON object per line; bytes that are not text: {"base64": …}.'
)
def deadletters_list(config: WorkerConfig, selection: Any, limit: int | None, as_json: bool) -> None:
    """List dead letters, newest last, with their number by reason."""
    from streams.tools.dead_letters_text import list_dead_letters

    list_dead_letters(config, selection, limit=limit, as_json=as_json)


@deadletters.command("show", epilog="\b\nExample:\n  python -m streams deadletters show clicks/3/991")
@configured(load_worker)
@click.argument("ref", metavar="MESSAGE", callback=_message_ref)
def deadletters_show(config: WorkerConfig, ref: Any) -> None:
    """Show one dead letter: its reason, its headers, and its bytes as JSON, text or a hex dump.

    MESSAGE is topic/partition/offset, of the original message as `list` prints it or of the dead letter itself.
    """
    from streams.tools.dead_letters_text import show_dead_letter

    show_dead_letter(config, ref)


@deadletters.command(
    "replay",
    epilog="""\b
Examples:
  python -m streams deadletters replay --reason wrong_dimension --since 1d
  python -m streams deadletters replay --reason wrong_dimension --since 1d --yes
  python -m streams deadletters replay clicks/3/991 clicks/3/1004 --yes

\b
Exit status: 0 all of them can be, or were, sent; 1 some cannot, for the printed reasons; 75 Kafka is unavailable.""",
)
@configured(load_worker)
@_selected
@click.argument("refs", nargs=-1, metavar="[MESSAGE]...", callback=_message_ref)
@click.option("--again", is_flag=True, help="Include dead letters that were replayed before.")
@click.option("--yes", "send", is_flag=True, help="Send. Without it, only print what would be sent.")
def deadletters_replay(config: WorkerConfig, selection: Any, limit: int | None, again: bool, send: bool) -> None:
    """Send dead letters back to their original topics, after the cause was fixed.

    Key, value and headers are the original ones; the headers replay-attempt and replay-of are added. The dead letters
    stay where they are. Each is sent once, unless --again is given; after a run that was killed, the next run may
    repeat the last 100.

    A replayed message comes last: a click is appended to the end of its user's history, out of its original order, and
    an item replaces what was published under its id since.
    """
    from streams.tools.dead_letters_replay import replay_dead_letters

    sys.exit(0 if replay_dead_letters(config, selection, limit=limit, again=again, send=send) else EXIT_FAILURE)
