"""The Faust app of an agent: Faust's settings, and why they have their values."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import faust

from configs.schema import Kafka, WorkerConfig
from streams.agents.agent import BatchAgent
from streams.agents.consumer import WorkerApp, open_gate

#: Messages that the Kafka client delivers at once, or two batches if that is more: some 2 MB of clicks. Without a limit
#: it unpacks all that it has of a partition, 40,000 clicks; with 500, the agent spends half of its time waiting.
_MAX_POLL_RECORDS = 4096
#: Deliveries that may wait for the agent; beyond that, Faust stops fetching.
_MAX_WAITING_DELIVERIES = 2
#: Milliseconds after which the Kafka client asks for the partitions of the topic again. The leader of a group assigns
#: what it knows: after an outage it may not know the topic, and then no member gets a partition until it asks again.
_METADATA_MAX_AGE_MS = 5_000


def worker_app(
    config: WorkerConfig,
    group: str,
    batch_size: int,
    agent: Callable[[WorkerApp], BatchAgent[Any]],
    gate: Callable[[], Awaitable[None]] = open_gate,
) -> WorkerApp:
    """Build the Faust app of one agent, a consumer group of its own.

    Args:
        config: the worker's configuration.
        group: the agent's consumer group.
        batch_size: most messages in a batch.
        agent: builds the app's agent.
        gate: as for `WorkerApp`.
    """
    worker = config.worker
    return WorkerApp(
        group,
        agent=agent,
        gate=gate,
        broker=[f"kafka://{server}" for server in config.kafka.bootstrap_servers.split(",")],
        # Unique to this process, so that the group's members can be told apart.
        broker_client_id=f"mindstream-{socket.gethostname()}-{os.getpid()}",
        broker_credentials=_credentials(config.kafka),
        datadir=str((worker.data_dir / "faust").absolute()),
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=max(2**20, config.topics.max_message_bytes),
        consumer_metadata_max_age_ms=_METADATA_MAX_AGE_MS,
        broker_max_poll_records=max(_MAX_POLL_RECORDS, 2 * batch_size),
        broker_session_timeout=worker.session_timeout,
        broker_heartbeat_interval=worker.session_timeout / 5,
        # If members die together with the broker, its successor may not notice that they are dead: then the other
        # members wait for them for this long.
        broker_rebalance_timeout=worker.session_timeout,
        # Beyond the retry budget: while a batch waits for Milvus, nothing is fetched, and a worker that leaves the
        # group for that never returns.
        broker_max_poll_interval=2 * worker.retry_budget + 600,
        # The agent commits offsets; this only paces Faust's own bookkeeping.
        broker_commit_interval=worker.commit_interval,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_replication_factor=config.topics.replication,
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
        stream_buffer_maxsize=_MAX_WAITING_DELIVERIES,
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
