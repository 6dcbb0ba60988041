"""Apache Kafka: one process in KRaft mode, both broker and controller, on the loopback interface."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # where the type checker finds it

from embedded import java, ports, process
from embedded.errors import with_log
from embedded.instance import Reporter
from embedded.server import Launch, Server

#: Prefix of the topics and groups of the readiness check; they are deleted afterwards.
PROBE = "mindstream-probe-"
#: Seconds for one step of the readiness check. A new broker creates its offsets topic in one of them.
_STEP_TIMEOUT_S = 10.0
#: Seconds within which a running broker answers even on a busy machine.
_PING_TIMEOUT_S = 5.0

#: Heap for the load of a demo or a test. The whole process takes about 350 MB.
_HEAP = "512m"

# One node: one copy of everything and few internal partitions, each of which costs files and start-up time.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A first consumer does not wait for others: 3 s less for each test.
group.initial.rebalance.delay.ms=0
# A killed broker can register again only after this time: 3 s sooner than by default.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
# More than the largest message of our topics (5 MiB, dead letters).
message.max.bytes=8388608
# A week of data, in segments small enough that old ones are deleted.
log.retention.hours=168
log.segment.bytes=134217728
# The default of 128 MiB would be a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
"""


class Kafka(Server):
    name = "kafka"
    flavour = "kafka"
    title = "Kafka"

    @property
    def home(self) -> Path:
        return self.instance.folder / "kafka"

    def check(self) -> None:
        java.find_java()

    def install(self, report: Reporter) -> None:
        java.classpath(self.instance.cache, report)

    # Overridden by the tests' brokers that have other listeners, users or rights.

    def properties(self, port: int, controller: int) -> str:  # noqa: ARG002 - for those that override it
        """Return more lines for server.properties; of two lines for one key, Kafka uses the later one."""
        return ""

    def format_options(self) -> Sequence[str]:
        """Return more arguments for `StorageTool format`, such as the first users."""
        return ()

    def client(self, port: int) -> dict[str, Any]:
        """Return the settings of a client that has all rights."""
        return {"bootstrap.servers": self.uri(port)}

    def launch(self, port: int, report: Reporter) -> Launch:
        self.home.mkdir(parents=True, exist_ok=True)
        data, settings = self.home / "data", self.home / "server.properties"
        (controller,) = ports.pick(1, taken=[port])
        properties = _PROPERTIES.format(host=ports.HOST, port=port, controller=controller, data=data)
        settings.write_text(properties + self.properties(port, controller))
        command = self._java(report)
        self._format(command, settings, data, report)
        return Launch([*command, f"-Xmx{_HEAP}", "-XX:+ExitOnOutOfMemoryError", "kafka.Kafka", settings], self.home)

    def probe(self, port: int) -> None:
        """Create a topic, produce one message, read it back, commit its offset; delete the topic and the group."""
        servers, name = {**_quiet_settings(), **self.client(port)}, f"{PROBE}{uuid.uuid4().hex[:8]}"
        admin = AdminClient(servers)
        # Delete also the topics of earlier checks that were killed.
        stale = [topic for topic in admin.list_topics(timeout=_STEP_TIMEOUT_S).topics if topic.startswith(PROBE)]
        admin.create_topics([NewTopic(name, 1, 1)], operation_timeout=_STEP_TIMEOUT_S)[name].result(_STEP_TIMEOUT_S)
        try:
            _produce(servers, name)
            _consume(servers, name)
            admin.delete_consumer_groups([name])[name].result(_STEP_TIMEOUT_S)
        finally:
            for deleted in admin.delete_topics([*stale, name], operation_timeout=_STEP_TIMEOUT_S).values():
                deleted.exception(_STEP_TIMEOUT_S)

    def ping(self, port: int) -> None:
        AdminClient({**_quiet_settings(), **self.client(port)}).list_topics(timeout=_PING_TIMEOUT_S)

    def _java(self, report: Reporter) -> list[str | Path]:
        # In the system's temporary folder, native libraries unpacked by killed brokers would accumulate.
        scratch = self.home / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        return [
            java.find_java(),
            *("-cp", java.classpath(self.instance.cache, report)),
            *(f"-Djava.io.tmpdir={scratch}", "-XX:-UsePerfData"),
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS",
            # This class logs every setting of every component: 1,000 lines per start.
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
        ]

    def _format(self, command: list[str | Path], settings: Path, data: Path, report: Reporter) -> None:
        """Prepare the data folder once. If the marker is missing, that was never finished, and the data never used."""
        marker = self.home / "formatted"
        if marker.exists():
            return
        report("Preparing Kafka's data folder …")
        shutil.rmtree(data, ignore_errors=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", settings, *self.format_options()]
        with self.log.open("ab") as output:
            done = subprocess.run(  # noqa: S603 - our own command, no shell
                [str(part) for part in [*command, "-XX:TieredStopAtLevel=1", *arguments]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=process.with_mark(os.environ, self.instance.folder),
            )
        if done.returncode:
            raise with_log("Kafka's data folder could not be prepared.", self.log)
        marker.touch()


def _cluster_id() -> str:
    """Return 22 characters of URL-safe base64, as Kafka requires; a leading dash would look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _quiet_settings() -> dict[str, Any]:
    """Return client settings for a check: failures are raised, nothing is printed."""
    logger = logging.getLogger("embedded.kafka.client")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return {"logger": logger, "socket.timeout.ms": int(_STEP_TIMEOUT_S * 1000), "reconnect.backoff.max.ms": 500}


def _produce(servers: dict[str, Any], topic: str) -> None:
    failures: list[KafkaError] = []
    producer = Producer({**servers, "acks": "all"})
    producer.produce(topic, value=topic, on_delivery=lambda error, _: failures.append(error) if error else None)
    if producer.flush(_STEP_TIMEOUT_S) or failures:
        raise RuntimeError(f"a message could not be produced: {failures or 'no answer'}")


def _consume(servers: dict[str, Any], topic: str) -> None:
    """Read the message back. The commit makes the broker create its offsets topic now and not during a test."""
    consumer = Consumer({**servers, "group.id": topic, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(_STEP_TIMEOUT_S)
        if message is None or message.error() or message.value() != topic.encode():
            raise RuntimeError("a produced message could not be read back")
        deadline = time.monotonic() + _STEP_TIMEOUT_S
        while True:
            try:
                consumer.commit(message=message, asynchronous=False)
                return
            except KafkaException:
                # The coordinator of a new broker is still loading.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
    finally:
        consumer.close()
