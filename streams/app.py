"""The composition root: settings → checked connections → Faust apps with their agents. Nothing connects elsewhere."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Consumer, Transport
from prometheus_client import CollectorRegistry, start_http_server

from configs.schema import Kafka, WorkerConfig
from model.artifact import Artifact
from model.encoder import Encoder
from streams.agents import BatchAgent, RetryPolicy
from streams.artifacts import load_artifact
from streams.clicks import ClickProcessor
from streams.embeddings import HistoryEmbeddings
from streams.engine import RecallEngine
from streams.errors import FatalError
from streams.items import ItemProcessor
from streams.metrics import ClickMetrics, ItemMetrics
from streams.milvus import MilvusIndex
from streams.outbox import KafkaOutbox
from streams.restore import restore_histories
from streams.store import PartitionStores
from streams.topics import HEADER_BYTES, changelog_topic, check_topics, topic_id, topic_specs

_LOG = logging.getLogger("mindstream.worker")

AGENTS = ("clicks", "items")


class _Consumer(Consumer):
    """Faust's consumer, mended where it would let messages through before it is back at the committed offset."""

    async def perform_seek(self) -> None:
        self.stop_flow()  # both callers resume it afterwards
        await super().perform_seek()
        # Partitions without a commit are left where they are: whatever was fetched and thrown away while the
        # partitions moved would be gone.
        fresh = [tp for tp in self.assignment() if not self._committed_offset.get(tp)]
        if fresh:
            await self._thread.seek_to_beginning(*[self._new_topicpartition(t.topic, t.partition) for t in fresh])


class _Transport(Transport):
    Consumer = _Consumer


class WorkerApp(faust.App):
    """A Faust app over the mended consumer, which lets its agent finish before the consumer goes."""

    batches: BatchAgent | None = None

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    async def on_stop(self) -> None:
        if self.batches is not None:
            await self.batches.stop()
        await super().on_stop()


def build(config: WorkerConfig, agents: Collection[str]) -> list[WorkerApp]:
    """Check everything that the worker needs, then build one Faust app for each agent.

    Each agent is a consumer group of its own, so that agents can run together or apart.

    Raises:
        FatalError: something cannot work; the message says which command or setting mends it.
        TransientError: Kafka or Milvus is away.
    """
    artifact = load_artifact(config)
    _make_folder(config.worker.data_dir)
    check_topics(config.kafka, topic_specs(config.topics, config.worker.group))
    # The item agent owns the collection; a click worker alone must find it.
    index = MilvusIndex(config.milvus, artifact.model_version, artifact.dim, create="items" in agents)
    registry = CollectorRegistry()
    builders = {"clicks": _click_app, "items": _item_app}
    apps = [builders[name](config, artifact, index, registry) for name in agents]
    if config.worker.metrics_port:
        start_http_server(config.worker.metrics_port, addr=config.worker.metrics_host, registry=registry)
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
    return apps


def _make_folder(folder: Path) -> None:
    try:
        (folder / "faust").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(
            f"worker.data_dir {folder} cannot be used ({error.strerror}); name a folder that this user may write"
        ) from None


def _click_app(config: WorkerConfig, artifact: Artifact, index: MilvusIndex, registry: CollectorRegistry) -> WorkerApp:
    app = _faust_app(config, "clicks")
    stores = PartitionStores(config.worker.data_dir / "history")
    changelog = changelog_topic(config.worker.group)
    stores.bind(topic_id(config.kafka, changelog))
    encoder = Encoder.from_artifact(artifact)
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
    metrics = ClickMetrics(registry)
    processor = ClickProcessor(
        engine,
        stores,
        KafkaOutbox(config.kafka, config.topics.max_message_bytes + HEADER_BYTES),
        recommendations=config.topics.recommendations,
        changelog=changelog,
        dead_letters=config.topics.dead_letters,
        model_version=artifact.model_version,
        history_length=config.history.length,
        metrics=metrics,
    )
    app.batches = BatchAgent(
        app,
        config.topics.clicks,
        processor.process,
        take_over=partial(restore_histories, config.kafka, changelog, stores),
        let_go=stores.disown,
        size=config.batch.size,
        wait=config.batch.wait,
        metrics=metrics,
        **_timing(config),
    )
    return app


def _item_app(config: WorkerConfig, artifact: Artifact, index: MilvusIndex, registry: CollectorRegistry) -> WorkerApp:
    app = _faust_app(config, "items")
    metrics = ItemMetrics(registry)
    processor = ItemProcessor(
        index,
        KafkaOutbox(config.kafka, config.topics.max_message_bytes + HEADER_BYTES),
        dead_letters=config.topics.dead_letters,
        model_version=artifact.model_version,
        dim=artifact.dim,
        batch_size=config.items.batch_size,
        metrics=metrics,
    )
    app.batches = BatchAgent(
        app,
        config.topics.items,
        processor.process,
        size=config.items.batch_size,
        wait=config.items.batch_wait,
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


def _faust_app(config: WorkerConfig, agent: str) -> WorkerApp:
    worker = config.worker
    return WorkerApp(
        f"{worker.group}-{agent}",
        broker=[f"kafka://{server}" for server in config.kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(config.kafka),
        datadir=str((worker.data_dir / "faust").absolute()),
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=max(2**20, config.topics.max_message_bytes),
        broker_session_timeout=worker.session_timeout,
        broker_heartbeat_interval=worker.session_timeout / 5,
        # Beyond the retry budget: while a batch waits for Milvus, nothing is fetched, and a worker that leaves the
        # group for that never comes back.
        broker_max_poll_interval=2 * worker.retry_budget + 600,
        # Offsets are committed by streams.agents; this only paces Faust's own bookkeeping.
        broker_commit_interval=worker.commit_interval,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_replication_factor=config.topics.replication,
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
        stream_buffer_maxsize=4096,
    )


def _credentials(kafka: Kafka) -> Any:
    context = None
    if kafka.uses_tls:
        context = ssl.create_default_context(cafile=None if kafka.ca_file is None else str(Path(kafka.ca_file)))
    if kafka.uses_sasl:
        assert kafka.password is not None  # checked when the settings were read
        return faust.SASLCredentials(
            username=kafka.username,
            password=kafka.password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
