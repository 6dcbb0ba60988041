"""Command line of the streaming side: worker, topics, tail, audit, deadletters."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from configs.errors import EXIT_CONFIG, EXIT_FAILURE, EXIT_TRANSIENT, ConfigError, FatalError, TransientError
from configs.loader import load_worker
from configs.schema import WorkerConfig
from streams.errors import Reason
from streams.worker.logs import configure


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds -c and --set, and passes the settings as `config`."""

    @click.option(
        "-c",
        "--config",
        "path",
        type=click.Path(path_type=Path),
        help="YAML file with the keys that differ from configs/kafka.yaml and configs/worker.yaml.",
    )
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key; repeatable.")
    @wraps(command)
    def wrapped(path: Path | None, overrides: tuple[str, ...], **kwargs: Any) -> Any:
        with _reported():
            return command(config=load_worker(path, overrides), **kwargs)

    return wrapped


@contextmanager
def _reported() -> Iterator[None]:
    """Turns our errors into one line and the exit status that `streams.errors` lists."""
    try:
        yield
    except (ConfigError, FatalError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_CONFIG)
    except TransientError as error:
        key = {"Kafka": "kafka.bootstrap_servers", "Milvus": "milvus.uri"}[error.system]
        hint = f"does it run, and is {key} its address? Embedded servers: python -m embedded status"
        click.echo(f"error: {error}; {hint}", err=True)
        sys.exit(EXIT_TRANSIENT)
    except KeyboardInterrupt:
        sys.exit(130)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Mindstream's streaming side: clicks in, recommendations out.

    \b
    Examples:
      python -m streams topics create
      python -m streams worker -c configs/worker.yaml
      python -m streams tail
      python -m streams audit
      python -m streams deadletters list
    """


@main.command(
    epilog="""\b
Examples:
  python -m streams worker -c configs/worker.yaml
  python -m streams worker --agents clicks --set worker.data_dir=.mindstream/worker-2 --set worker.metrics_port=9465
  python -m streams worker --agents items

\b
Exit status: 0 stopped by a signal; 69 stood still while messages waited, 70 defect, 75 Kafka or Milvus away for
too long: restart the process; 78 the configuration cannot work."""
)
@_configured
@click.option(
    "--agents",
    default="clicks,items",
    show_default=True,
    help="What this process does: clicks, items, or both. Run them apart to scale click workers alone.",
)
@click.option(
    "--log-level",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="What is logged: this and worse.",
)
def worker(config: WorkerConfig, agents: str, log_level: str) -> None:
    """Run the streaming worker until SIGTERM or SIGINT.

    The click agent answers clicks with recommendations; the item agent writes published items into Milvus. Processes
    with the click agent share the partitions of `clicks`: more processes than partitions have nothing to do. On one
    machine each needs a worker.data_dir and a worker.metrics_port of its own.
    """
    from streams.worker.parts import WorkerParts  # Faust takes a second to import: `--help` does without
    from streams.worker.process import run

    names = tuple(dict.fromkeys(name.strip() for name in agents.split(",")))
    unknown = [name for name in names if name not in ("clicks", "items")]
    if unknown:
        raise click.BadParameter(f"unknown agent {unknown[0]!r}; known: clicks, items", param_hint="--agents")
    configure(log_level)
    # Tests and benchmarks pass other parts with `main(obj=…)`.
    status = run(config, names, click.get_current_context().obj or WorkerParts())
    logging.shutdown()
    # Not sys.exit: a thread that still waits for an answer of Milvus would hold the process back, and nothing of its
    # batch was acknowledged.
    os._exit(status)


@main.group()
def topics() -> None:
    """Create and check the Kafka topics."""


@topics.command("create", epilog="\b\nExample:\n  python -m streams topics create --set topics.replication=3")
@_configured
def topics_create(config: WorkerConfig) -> None:
    """Create the topics that do not exist, and check those that do."""
    from streams.kafka.topics import changelog_topic, check_changelog, check_topics, create_topics, topic_specs

    specs = topic_specs(config.topics, config.worker.group)
    created = create_topics(config.kafka, specs, config.topics.replication)
    for spec in specs:
        policy = spec.config["cleanup.policy"]
        state = "created" if created[spec.name] else "exists"
        click.echo(f"{state:8} {spec.name} ({spec.partitions} partitions, {policy})")
    check_topics(config.kafka, specs)
    check_changelog(config.kafka, changelog_topic(config.worker.group))


@topics.command("check", epilog="\b\nExample:\n  python -m streams topics check -c configs/worker.yaml")
@_configured
def topics_check(config: WorkerConfig) -> None:
    """Check that all topics exist with the configured number of partitions, and that Kafka keeps the histories."""
    from streams.kafka.topics import changelog_topic, check_changelog, check_topics, topic_specs

    check_topics(config.kafka, topic_specs(config.topics, config.worker.group))
    check_changelog(config.kafka, changelog_topic(config.worker.group))
    click.echo("all topics exist with the configured partitions; the changelog keeps the histories")


@main.command(epilog="\b\nExamples:\n  python -m streams tail\n  python -m streams tail --json --user 42 | head -3")
@_configured
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as on the topic.")
@click.option("--user", "users", multiple=True, help="Only this user's recommendations; repeatable.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest recommendation that Kafka holds.")
@click.option("--limit", type=click.IntRange(min=1), help="End after this many.")
def tail(config: WorkerConfig, as_json: bool, users: tuple[str, ...], from_beginning: bool, limit: int | None) -> None:
    """Show recommendations as they are written."""
    from streams.tools.tail import tail as show

    show(config, as_json=as_json, users=users, from_beginning=from_beginning, limit=limit)


@main.command(epilog="\b\nExamples:\n  python -m streams audit\n  python -m streams audit --json")
@_configured
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object.")
def audit(config: WorkerConfig, as_json: bool) -> None:
    """Recompute every history from the clicks and compare it with what the worker wrote.

    Reads clicks, dead letters, the changelog and recommendations from their beginning, so it needs clicks that
    Kafka still holds, and a worker that has caught up. Exits with status 1 on any difference.
    """
    from streams.tools.audit import audit_kafka

    report = audit_kafka(config)
    click.echo(report.to_json() if as_json else report.to_text())
    sys.exit(0 if report.ok else EXIT_FAILURE)


@main.group()
def deadletters() -> None:
    """List, show and send back messages that could not be processed."""


def _place(_context: click.Context, _option: click.Parameter, given: Any) -> Any:
    from streams.messages.dead_letters import MessageRef

    try:
        return MessageRef.parse(given) if isinstance(given, str) else tuple(MessageRef.parse(text) for text in given)
    except ValueError:
        raise click.BadParameter("a place is topic/partition/offset, as `list` prints it") from None


def _moment(_context: click.Context, _option: click.Parameter, given: str | None) -> float | None:
    from streams.tools.dead_letters import parse_time

    try:
        return None if given is None else parse_time(given, time.time())
    except ValueError:
        raise click.BadParameter(f"{given!r} is no time; write 2026-05-01T12:00 or 30m, 2h, 1d (ago)") from None


def _selected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the filters; passes them as `selection`, and `limit` by itself."""

    @click.option("--reason", "reasons", multiple=True, type=click.Choice(get_args(Reason)), help="Repeatable.")
    @click.option("--topic", "topics", multiple=True, help="Topic that the letters come from; repeatable.")
    @click.option("--since", callback=_moment, metavar="TIME", help="Not before: 2026-05-01T12:00, or 30m, 2h, 1d ago.")
    @click.option("--until", callback=_moment, metavar="TIME", help="Not after.")
    @click.option("--limit", type=click.IntRange(min=1), help="At most so many: list the newest, replay the oldest.")
    @wraps(command)
    def wrapped(
        reasons: tuple[str, ...],
        topics: tuple[str, ...],
        since: float | None,
        until: float | None,
        places: tuple[Any, ...] = (),
        **kwargs: Any,
    ) -> Any:
        from streams.tools.dead_letters import Selection

        return command(selection=Selection(reasons, topics, since, until, places), **kwargs)

    return wrapped


@deadletters.command(
    "list",
    epilog="""\b
Examples:
  python -m streams deadletters list
  python -m streams deadletters list --reason not_json --reason bad_key --since 2h
  python -m streams deadletters list --topic clicks --limit 20 --json""",
)
@_configured
@_selected
@click.option("--json", "as_json", is_flag=True, help='One JSON object a line; bytes that are no text: {"base64": …}.')
def deadletters_list(config: WorkerConfig, selection: Any, limit: int | None, as_json: bool) -> None:
    """List dead letters, newest last, with their number by reason."""
    from streams.tools.dead_letters_text import list_dead_letters

    list_dead_letters(config, selection, limit=limit, as_json=as_json)


@deadletters.command("show", epilog="\b\nExample:\n  python -m streams deadletters show clicks/3/991")
@_configured
@click.argument("place", callback=_place)
def deadletters_show(config: WorkerConfig, place: Any) -> None:
    """Show one dead letter: why it is one, its headers, its bytes as JSON, text or a hex dump.

    PLACE is topic/partition/offset, of the message as `list` prints it or of the letter itself.
    """
    from streams.tools.dead_letters_text import show_dead_letter

    show_dead_letter(config, place)


@deadletters.command(
    "replay",
    epilog="""\b
Examples:
  python -m streams deadletters replay --reason wrong_dimension --since 1d
  python -m streams deadletters replay --reason wrong_dimension --since 1d --yes
  python -m streams deadletters replay clicks/3/991 clicks/3/1004 --yes

\b
Exit status: 0 all of them can be, or were, sent; 1 some cannot (it says why); 75 Kafka is away.""",
)
@_configured
@_selected
@click.argument("places", nargs=-1, callback=_place)
@click.option("--again", is_flag=True, help="Send those that were sent back before, too.")
@click.option("--yes", "send", is_flag=True, help="Send. Without it, nothing is sent: it says what would be.")
def deadletters_replay(config: WorkerConfig, selection: Any, limit: int | None, again: bool, send: bool) -> None:
    """Send dead letters back to the topics that they came from, after what was wrong has been mended.

    Key, value and headers are the original ones; the headers replay-attempt and replay-of are added. The letters stay
    where they are. Each is sent once, unless you say --again; a run that is killed may send the last 100 once more
    with the next one.

    What is sent back comes last: a click stands at the end of its user's history, out of its original order, and an
    item replaces what was published under its id since.
    """
    from streams.tools.dead_letters_replay import replay_dead_letters

    sys.exit(0 if replay_dead_letters(config, selection, limit=limit, again=again, send=send) else EXIT_FAILURE)


if __name__ == "__main__":
    main(prog_name="python -m streams")
