"""The composition root of the worker: check → build → observe."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.errors import FatalError
from configs.schema import WorkerConfig
from model.artifact import Artifact
from streams.agents.consumer import WorkerApp
from streams.kafka.acls import check_rights, used_topics, worker_rights
from streams.kafka.topics import changelog_topic, check_changelog, check_topics, topic_specs
from streams.metrics import worker_registry
from streams.milvus.observed import ObservedIndex
from streams.recall.factory import load_artifact, required_items
from streams.state.damage import disk_error
from streams.worker.catalogue import Catalogue
from streams.worker.click_agent import build_click_agent
from streams.worker.health import Health
from streams.worker.http import serve
from streams.worker.item_agent import build_item_agent
from streams.worker.lag import KafkaLag
from streams.worker.parts import Blueprint, BuiltAgent, WorkerParts
from streams.worker.watchdog import LoopMonitor, Watchdog

_LOG = logging.getLogger("mindstream.worker")

#: In the order of `Process.apps`.
_BUILDERS = {"clicks": build_click_agent, "items": build_item_agent}
AGENTS = tuple(_BUILDERS)


@dataclass(frozen=True, slots=True)
class Process:
    """One worker process: the Faust apps, the monitor of the event loop in which they run, and the watchdog.

    The first app is started last: the start of the click agent may wait until the item agent has filled the collection.
    """

    apps: list[WorkerApp]
    loop_monitor: LoopMonitor
    watchdog: Watchdog


def build(config: WorkerConfig, agents: Collection[str], parts: WorkerParts = WorkerParts()) -> Process:  # noqa: B008 - immutable
    """Check everything that the worker needs, then build one Faust app for each agent, and what observes them.

    Each agent is a consumer group of its own, so that agents can run in one process or in several.

    Args:
        config: the worker's configuration.
        agents: names from `AGENTS`.
        parts: classes of the replaceable parts.

    Raises:
        FatalError: something cannot work; the message names the command or setting that fixes it.
        TransientError: Kafka or Milvus is unavailable.
        RestartRequired: the disk is full.
    """
    artifact = _check(config, agents)
    # The item agent owns the collection; a click worker without it must find the collection.
    milvus = parts.index(config.milvus, artifact.model_version, artifact.dim, create="items" in agents)
    index = ObservedIndex(milvus, max_age_s=2 * config.milvus.timeout + 10)
    registry = worker_registry(artifact.model_version)
    catalogue = Catalogue(index, required_items(config.recall, artifact), registry)
    blueprint = Blueprint(config, artifact, index, catalogue, registry, parts)
    built = {name: _BUILDERS[name](blueprint) for name in AGENTS if name in agents}
    rows, items = catalogue.count(), len(artifact.item_ids)
    _LOG.info("model %s: %d dimensions, %d items; %d in Milvus", artifact.model_version, artifact.dim, items, rows)
    return _observe(blueprint, built, index)


def _check(config: WorkerConfig, agents: Collection[str]) -> Artifact:
    """Check artifact, data folder, rights and topics; return the artifact. Raises as `build`."""
    artifact = load_artifact(config)
    _make_folder(config.worker.data_dir)
    rights = worker_rights(config.topics, config.worker.group, agents)
    check_rights(config.kafka, rights)
    check_topics(config.kafka, used_topics(topic_specs(config.topics, config.worker.group), rights))
    if "clicks" in agents:
        check_changelog(config.kafka, changelog_topic(config.worker.group))
    return artifact


def _make_folder(folder: Path) -> None:
    try:
        (folder / "faust" / "v1" / "tables").mkdir(parents=True, exist_ok=True)  # all that Faust would make later
    except (FileExistsError, NotADirectoryError):
        raise FatalError(f"worker.data_dir {folder} is not a folder, or is in a file; name another one") from None
    except OSError as error:
        raise disk_error(folder, error, "worker.data_dir") from None


def _observe(blueprint: Blueprint, built: Mapping[str, BuiltAgent], index: ObservedIndex) -> Process:
    """Set up the watchdog over all agents, and the HTTP server of metrics and health checks."""
    config, catalogue = blueprint.config, blueprint.catalogue
    loop_monitor = LoopMonitor()
    watchdog = Watchdog(config.worker.stall_timeout, config.worker.retry_budget, loop_monitor)
    for agent in built.values():
        conf, batch_agent = agent.app.conf, agent.app.batch_agent
        agent.metrics.topic_partitions.set(agent.partitions)
        lag = KafkaLag(config.kafka, conf.id, batch_agent.topic, agent.partitions, conf.broker_client_id)
        watchdog.watch(batch_agent, lag, agent.metrics.lag, agent.restored)
    if config.worker.metrics_port:
        agents = {name: agent.app.batch_agent for name, agent in built.items()}
        health = Health(agents, index, catalogue, watchdog, loop_monitor, blueprint.artifact.model_version)
        serve(config.worker.metrics_host, config.worker.metrics_port, health, blueprint.registry)
    return Process([agent.app for agent in built.values()], loop_monitor, watchdog)
