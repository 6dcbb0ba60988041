"""Command line of the streaming side: `python -m streams worker | service | topics | tail | export | audit | …`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from streams.worker.signals import exit_on_stop_signal

if __name__ == "__main__" and sys.argv[1:2] in (["worker"], ["service"]):
    exit_on_stop_signal()  # before the imports below, which take a second

import click

from configs.cli import Group, configured
from configs.loader import load_service, load_worker
from configs.schema import ServiceConfig, WorkerConfig
from streams.tools.commands import audit, deadletters, export, tail


@click.group(cls=Group)
def main() -> None:
    """Mindstream's streaming side: clicks in, recommendations out.

    \b
    Examples:
      python -m streams topics create
      python -m streams worker -c configs/worker.yaml
      python -m streams service -c configs/service.yaml
      python -m streams tail
      python -m streams export -o lists.jsonl
      python -m streams audit
      python -m streams deadletters list
    """


_log_level = click.option(
    "--log-level",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="Least severe level that is logged.",
)


@main.command(
    epilog="""\b
Examples:
  python -m streams worker -c configs/worker.yaml
  python -m streams worker --agents clicks --set worker.data_dir=.mindstream/worker-2 --set worker.metrics_port=9465
  python -m streams worker --agents items

\b
Exit status: 0 stopped by a signal; 69 the worker stalled, 70 a defect, 75 Kafka or Milvus was unavailable for too
long: restart the process; 78 the configuration cannot work."""
)
@configured(load_worker)
@click.option(
    "--agents",
    default="clicks,items",
    show_default=True,
    help="Agents to run: clicks, items, or both. Run them in separate processes to scale only the click workers.",
)
@_log_level
def worker(config: WorkerConfig, agents: str, log_level: str) -> None:
    """Run the streaming worker until SIGTERM or SIGINT.

    The click agent answers clicks with recommendations; the item agent writes published items into Milvus. Processes
    with the click agent share the partitions of `clicks`: processes beyond their number stay idle. On one machine,
    each process needs its own worker.data_dir and worker.metrics_port.
    """
    exit_on_stop_signal()
    # Imported here: Faust takes a second to import, and the other commands do not need it.
    from streams.worker.logs import configure_logging
    from streams.worker.parts import WorkerParts
    from streams.worker.process import run

    names = tuple(dict.fromkeys(name.strip() for name in agents.split(",")))
    unknown = [name for name in names if name not in ("clicks", "items")]
    if unknown:
        raise click.BadParameter(f"unknown agent {unknown[0]!r}; known: clicks, items", param_hint="--agents")
    configure_logging(log_level)
    # Tests and benchmarks pass other parts with `main(obj=…)`.
    status = run(config, names, click.get_current_context().obj or WorkerParts())
    logging.shutdown()
    # Not sys.exit, which joins threads: one may still wait for Milvus' response to a batch that will not be committed.
    os._exit(status)


@main.command(
    epilog="""\b
Examples:
  python -m streams service -c configs/service.yaml
  python -m streams service --set service.port=8081 --set service.data_dir=.mindstream/service-2

\b
Exit status: 0 stopped by a signal; 70 a defect, 75 Kafka or Milvus was unavailable at the start, or a topic was
recreated: restart the process; 78 the configuration cannot work."""
)
@configured(load_service)
@_log_level
def service(config: ServiceConfig, log_level: str) -> None:
    """Answer requests over HTTP until SIGTERM or SIGINT.

    Several services may run side by side; on one machine, each needs its own service.port and service.data_dir.
    """
    exit_on_stop_signal()
    # Imported here: the other commands need neither FastAPI nor NumPy.
    from streams.service.process import run
    from streams.worker.logs import configure_logging

    configure_logging(log_level)
    status = run(config)
    logging.shutdown()
    os._exit(status)  # not sys.exit, which joins threads: one may still wait for Milvus


@main.group()
def topics() -> None:
    """Create and check the Kafka topics."""


@topics.command("create", epilog="\b\nExample:\n  python -m streams topics create --set topics.replication=3")
@configured(load_worker)
def topics_create(config: WorkerConfig) -> None:
    """Create the topics that do not exist, and check those that do."""
    from streams.kafka.topics import create_topics, topic_specs

    specs = topic_specs(config.topics, config.worker.group)
    _check_topics(config, create_topics(config.kafka, specs, config.topics.replication))


@topics.command("check", epilog="\b\nExample:\n  python -m streams topics check -c configs/worker.yaml")
@configured(load_worker)
def topics_check(config: WorkerConfig) -> None:
    """Check that all topics have the configured number of partitions, and that the changelog retains the histories."""
    _check_topics(config, {})
    click.echo("all topics exist with the configured partitions; the changelog retains the histories")


def _check_topics(config: WorkerConfig, created: Mapping[str, bool]) -> None:
    """Print the topics as Kafka has them, then check them; `created` as returned by `create_topics`."""
    from streams.kafka.topics import changelog_topic, check_changelog, check_topics, topic_specs, topic_texts

    specs = topic_specs(config.topics, config.worker.group)
    for topic, text in topic_texts(config.kafka, specs).items():
        click.echo(f"{'created' if created.get(topic) else 'exists':8} {text}")
    check_topics(config.kafka, specs)
    check_changelog(config.kafka, changelog_topic(config.worker.group))


main.add_command(tail)
main.add_command(export)
main.add_command(audit)
main.add_command(deadletters)


if __name__ == "__main__":
    main(prog_name="python -m streams")
