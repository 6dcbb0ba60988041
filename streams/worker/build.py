"""The composition root of the worker: check → build → observe → warn."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from configs.errors import FatalError
from configs.schema import WorkerConfig
from model.artifact import Artifact
from streams.agents.consumer import WorkerApp
from streams.kafka.acls import check_rights, used_topics, worker_rights
from streams.kafka.topics import changelog_topic, check_changelog, check_topics, topic_specs
from streams.metrics import worker_registry
from streams.milvus.observed import ObservedIndex
from streams.recall.factory import load_artifact
from streams.state.damage import disk_error
from streams.worker.click_agent import build_click_agent
from streams.worker.health import Health
from streams.worker.http import serve
from streams.worker.item_agent import build_item_agent
from streams.worker.lag import KafkaLag
from streams.worker.parts import Blueprint, BuiltAgent, WorkerParts
from streams.worker.watchdog import LoopMonitor, Watchdog

_LOG = logging.getLogger("mindstream.worker")

_BUILDERS = {"clicks": build_click_agent, "items": build_item_agent}
AGENTS = tuple(_BUILDERS)


@dataclass(frozen=True, slots=True)
class Process:
    """One worker process: the Faust apps, the monitor of the event loop in which they run, and the watchdog."""

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
    blueprint = Blueprint(config, artifact, index, registry, parts)
    built = {name: _BUILDERS[name](blueprint) for name in agents}
    process = _observe(config, artifact, built, index, registry)
    _warn_of_missing_items(config, artifact, index, agents)
    return process


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
        raise disk_error(folder, error) from None


def _observe(
    config: WorkerConfig,
    artifact: Artifact,
    built: Mapping[str, BuiltAgent],
    index: ObservedIndex,
    registry: CollectorRegistry,
) -> Process:
    """Set up the watchdog over all agents, and the HTTP server of metrics and health checks."""
    loop_monitor = LoopMonitor()
    watchdog = Watchdog(config.worker.stall_timeout, config.worker.retry_budget, loop_monitor)
    for agent in built.values():
        conf, batch_agent = agent.app.conf, agent.app.batch_agent
        lag = KafkaLag(config.kafka, conf.id, batch_agent.topic, agent.partitions, conf.broker_client_id)
        watchdog.watch(batch_agent, lag, agent.metrics.lag, agent.restored)
    if config.worker.metrics_port:
        agents = {name: agent.app.batch_agent for name, agent in built.items()}
        health = Health(agents, index, watchdog, loop_monitor, artifact.model_version)
        serve(config.worker.metrics_host, config.worker.metrics_port, health, registry)
    return Process([agent.app for agent in built.values()], loop_monitor, watchdog)


def _warn_of_missing_items(
    config: WorkerConfig, artifact: Artifact, index: ObservedIndex, agents: Collection[str]
) -> None:
    info = index.describe()
    _LOG.info("model %s: %d dimensions, %d items in Milvus", artifact.model_version, artifact.dim, info.count)
    if "clicks" in agents and info.count < len(artifact.item_ids):
        _LOG.warning(
            "Milvus holds %d of the model's %d items; unless they are being published now, publish them: "
            "python -m producers.items --artifact %s",
            info.count,
            len(artifact.item_ids),
            config.model.artifact,
        )
