"""The composition root: settings → checked connections → Faust apps with their agents. Nothing connects elsewhere."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
from prometheus_client import CollectorRegistry

from configs.errors import FatalError
from configs.schema import Kafka, WorkerConfig
from model.artifact import Artifact
from streams.agents.agent import BatchAgent
from streams.agents.consumer import WorkerApp
from streams.agents.retrying import RetryPolicy
from streams.artifacts import encoder_of, load_artifact
from streams.kafka.acls import check_rights, used_topics, worker_rights
from streams.kafka.offsets import Positions
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import HEADER_BYTES, changelog_topic, check_changelog, check_topics, topic_id, topic_specs
from streams.metrics import ClickMetrics, ItemMetrics, worker_registry
from streams.milvus.index import MilvusIndex
from streams.milvus.observed import ObservedIndex
from streams.processing.clicks import ClickProcessor
from streams.processing.items import ItemProcessor
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.engine import RecallEngine
from streams.recall.ports import ItemIndex
from streams.state.changelog import Changelog
from streams.state.restore import Restorer, check_fences
from streams.state.standby import Standby
from streams.state.store import PartitionStores
from streams.worker.health import Health
from streams.worker.http import serve
from streams.worker.lag import KafkaLag
from streams.worker.watchdog import LoopMonitor, Watchdog

_LOG = logging.getLogger("mindstream.worker")

AGENTS = ("clicks", "items")
#: Messages that Kafka's client hands over at once, or two batches if that is more: some 2 MB of clicks. Without a limit
#: it unpacks all that it has of a partition, 40,000 clicks; with 500, the agent waits for the next half of the time.
_HANDED_OVER = 4096
#: How often that may wait for the agent; beyond that, Faust stops fetching.
_WAITING = 2


@dataclass(frozen=True)
class Process:
    """The parts of one worker process: the Faust apps, the monitor of their event loop, and the watchdog."""

    apps: list[WorkerApp]
    loop_monitor: LoopMonitor
    watchdog: Watchdog


def build(config: WorkerConfig, agents: Collection[str]) -> Process:
    """Check everything that the worker needs, then build one Faust app for each agent, and what looks after them.

    Each agent is a consumer group of its own, so that agents can run together or apart.

    Raises:
        FatalError: something cannot work; the message says which command or setting mends it.
        TransientError: Kafka or Milvus is away.
    """
    artifact = load_artifact(config)
    _make_folder(config.worker.data_dir)
    needed = worker_rights(config.topics, config.worker.group, agents)
    check_rights(config.kafka, needed)
    check_topics(config.kafka, used_topics(topic_specs(config.topics, config.worker.group), needed))
    if "clicks" in agents:
        check_changelog(config.kafka, changelog_topic(config.worker.group))
    # The item agent owns the collection; a click worker alone must find it.
    milvus = MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create="items" in agents)
    index = ObservedIndex(milvus, patience=2 * config.milvus.timeout + 10)
    registry = worker_registry(artifact.model_version)
    builders = {"clicks": _click_app, "items": _item_app}
    apps = {name: builders[name](config, artifact, index, registry) for name in agents}
    loop_monitor = LoopMonitor()
    watchdog = Watchdog(config.worker.stall_timeout, config.worker.retry_budget, loop_monitor)
    partitions = {"clicks": config.topics.partitions, "items": config.topics.item_partitions}
    for name, app in apps.items():
        reader = KafkaLag(config.kafka, app.conf.id, app.batches.topic, partitions[name], app.conf.broker_client_id)
        watchdog.watch(app.batches, reader, app.metrics.lag, app.restored)
    if config.worker.metrics_port:
        batches = {name: app.batches for name, app in apps.items()}
        health = Health(batches, index, watchdog, loop_monitor, artifact.model_version)
        serve(config.worker.metrics_host, config.worker.metrics_port, health, registry)
    info = index.describe()
    _LOG.info("model %s: %d dimensions, %d items in Milvus", artifact.model_version, artifact.dim, info.count)
    if "clicks" in agents and info.count < len(artifact.item_ids):
        _LOG.warning(
            "Milvus holds %d of the model's %d items; if they are not on their way, publish them: "
            "python -m producers.items --artifact %s",
            info.count,
            len(artifact.item_ids),
            config.model.artifact,
        )
    return Process(list(apps.values()), loop_monitor, watchdog)


def _make_folder(folder: Path) -> None:
    try:
        (folder / "faust").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(
            f"worker.data_dir {folder} cannot be used ({error.strerror}); name a folder that this user may write"
        ) from None


def _click_app(config: WorkerConfig, artifact: Artifact, index: ItemIndex, registry: CollectorRegistry) -> WorkerApp:
    app = _faust_app(config, "clicks", config.batch.size)
    stores = PartitionStores(config.worker.data_dir / "history")
    changelog = changelog_topic(config.worker.group)
    stores.bind(topic_id(config.kafka, changelog))
    encoder = encoder_of(artifact)
    embeddings = HistoryEmbeddings(
        artifact,
        index,
        capacity=config.recall.new_item_cache,
        refresh=config.recall.new_item_refresh,
        unknown_ttl=config.recall.unknown_item_ttl,
    )
    engine = RecallEngine(
        encoder,
        embeddings,
        index,
        top_k=config.recall.top_k,
        interests=config.recall.interests,
        filter_seen=config.recall.filter_seen,
    )
    metrics = app.metrics = ClickMetrics(registry)
    producer = KafkaRecordProducer(config.kafka, config.topics.max_message_bytes + HEADER_BYTES)
    processor = ClickProcessor(
        engine,
        stores,
        producer,
        recommendations=config.topics.recommendations,
        changelog=changelog,
        dead_letters=config.topics.dead_letters,
        max_letter_bytes=config.topics.max_message_bytes,
        model_version=artifact.model_version,
        history_length=config.history.length,
        metrics=metrics,
    )
    records, clicks = Changelog(config.kafka, changelog), Positions(config.kafka, config.topics.clicks)
    restorer = Restorer(records, stores, producer)
    app.restored = lambda: restorer.applied

    def restore(partitions: Collection[int]) -> None:
        metrics.restored.inc(restorer.take_over(partitions))
        check_fences(records, clicks, partitions)

    take_over: Callable[[Collection[int]], Any] = restore
    if config.worker.standby:
        others = PartitionStores(config.worker.data_dir / "history")
        standby = Standby(Changelog(config.kafka, changelog), others, range(config.topics.partitions))
        take_over = standby.around(take_over)
    app.batches = BatchAgent(
        app,
        config.topics.clicks,
        processor.process,
        prepare=processor.search,
        take_over=take_over,
        let_go=stores.disown,
        tend=restorer.tend,
        size=config.batch.size,
        wait=config.batch.wait,
        metrics=metrics,
        **_timing(config),
    )
    return app


def _item_app(config: WorkerConfig, artifact: Artifact, index: ItemIndex, registry: CollectorRegistry) -> WorkerApp:
    app = _faust_app(config, "items", config.items.batch_size)
    metrics = app.metrics = ItemMetrics(registry)
    processor = ItemProcessor(
        index,
        KafkaRecordProducer(config.kafka, config.topics.max_message_bytes + HEADER_BYTES),
        dead_letters=config.topics.dead_letters,
        max_letter_bytes=config.topics.max_message_bytes,
        model_version=artifact.model_version,
        dim=artifact.dim,
        require_lease=lambda: app.batches.require_lease(),
        metrics=metrics,
    )
    app.batches = BatchAgent(
        app,
        config.topics.items,
        processor.process,
        tend=processor.tend,
        size=config.items.batch_size,
        wait=config.items.batch_wait,
        lease=config.worker.session_timeout / 2,
        metrics=metrics,
        **_timing(config),
    )
    return app


def _timing(config: WorkerConfig) -> dict[str, Any]:
    worker = config.worker
    return {
        "retry": RetryPolicy(worker.retry_first, worker.retry_longest, worker.retry_budget),
        "commit_interval": worker.commit_interval,
        # Kafka gives the group this long to rejoin; a batch that needs longer is repeated by the next owner.
        "revoke_patience": worker.session_timeout / 2,
    }


def _faust_app(config: WorkerConfig, agent: str, batch_size: int) -> WorkerApp:
    worker = config.worker
    return WorkerApp(
        f"{worker.group}-{agent}",
        broker=[f"kafka://{server}" for server in config.kafka.bootstrap_servers.split(",")],
        # Of this process alone, so that the group's members can be told apart.
        broker_client_id=f"mindstream-{socket.gethostname()}-{os.getpid()}",
        broker_credentials=_credentials(config.kafka),
        datadir=str((worker.data_dir / "faust").absolute()),
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=max(2**20, config.topics.max_message_bytes),
        broker_max_poll_records=max(_HANDED_OVER, 2 * batch_size),
        broker_session_timeout=worker.session_timeout,
        broker_heartbeat_interval=worker.session_timeout / 5,
        # Members that died together with the broker are known to its successor, which may forget to watch them: then
        # the others wait for them as long as this.
        broker_rebalance_timeout=worker.session_timeout,
        # Beyond the retry budget: while a batch waits for Milvus, nothing is fetched, and a worker that leaves the
        # group for that never comes back.
        broker_max_poll_interval=2 * worker.retry_budget + 600,
        # Offsets are committed by streams.agents.agent; this only paces Faust's own bookkeeping.
        broker_commit_interval=worker.commit_interval,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_replication_factor=config.topics.replication,
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
        stream_buffer_maxsize=_WAITING,
    )


def _credentials(kafka: Kafka) -> Any:
    context = None
    if kafka.uses_tls:
        context = ssl.create_default_context(cafile=kafka.ca_file)
        if kafka.certificate_file is not None:
            context.load_cert_chain(kafka.certificate_file, kafka.key_file)
    if kafka.uses_sasl:
        assert kafka.password is not None  # checked when the settings were read
        return faust.SASLCredentials(
            username=kafka.username,
            password=kafka.password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
