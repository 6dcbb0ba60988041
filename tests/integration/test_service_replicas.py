"""The copies of a service on a broker of their own, which is killed, too; histories and lists as workers write them."""

from __future__ import annotations

import dataclasses
import random
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)
from prometheus_client import CollectorRegistry, generate_latest

from configs.errors import FatalError
from configs.loader import load_service
from configs.schema import ServiceConfig
from embedded.instance import CHECKOUT
from embedded.stack import Stack
from streams.errors import BadMessage, RestartRequired
from streams.history import CorruptHistoryError, History
from streams.kafka.compaction import read_compaction
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import read_to_end
from streams.kafka.topics import changelog_topic, create_topics, topic_specs
from streams.messages.recommendations import Recommendation, decode_recommendation, encode_recommendation
from streams.metrics import ReplicaMetrics
from streams.partitioning import KeyPartitions
from streams.ports import Message, Output
from streams.service.replicas import Replicas, open_replicas
from streams.state import follower
from tests.site import wait_for
from tests.unit.changelog import record

pytestmark = pytest.mark.integration

PARTITIONS = 4
USERS = [f"u{n}" for n in range(400)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("kafka"), milvus="none")
    yield made
    made.down(wipe=True)


class Deployment:
    """Topics of their own, a service's copies of them, and a writer that writes what workers and zombies write.

    Attributes:
        written: messages sent so far.
        changed: errors of topics that are others now.
        registry: has the metrics of the copies.
    """

    def __init__(self, folder: Path, address: str) -> None:
        name = f"t{uuid.uuid4().hex[:8]}"
        self.settings = [
            f"kafka.bootstrap_servers={address}",
            f"worker.group={name}",
            f"topics.partitions={PARTITIONS}",
            f"service.data_dir={folder / 'service'}",
            *(f"topics.{topic}={name}-{topic}" for topic in ("clicks", "items", "recommendations", "dead_letters")),
        ]
        self.config: ServiceConfig = load_service(None, self.settings, {})
        self.changelog = changelog_topic(name)
        self.written = 0
        self.changed: list[RestartRequired] = []
        self.registry = CollectorRegistry()
        self._producer = KafkaRecordProducer(self.config.kafka, 2**20, "murmur2")
        self._partitions = KeyPartitions("murmur2", PARTITIONS)
        self._clicks = [0] * PARTITIONS
        self._random = random.Random(1)

    def create_topics(self, **settings: str) -> None:
        """Create the topics; `settings` are those of the topic of recommendations that differ."""
        differ = {name.replace("_", "."): value for name, value in settings.items()}
        specs = [
            dataclasses.replace(spec, config=spec.config | differ) if "recommendations" in spec.name else spec
            for spec in topic_specs(self.config.topics, self.config.worker.group)
        ]
        create_topics(self.config.kafka, specs, 1)

    def open(self) -> Replicas:
        self.registry = CollectorRegistry()
        return open_replicas(self.config, self.changed.append, ReplicaMetrics(self.registry))

    def write(self, count: int) -> None:
        """Write records and lists of random users: newer ones, zombies' older ones, removals, and foreign messages."""
        self._producer.send([output for _ in range(count) for output in self._outputs(self._random.choice(USERS))])
        self.written += count

    def _outputs(self, user: str) -> Sequence[Output]:
        key, kind = user.encode(), self._random.random()
        (partition,) = self._partitions.of(key)
        self._clicks[partition] += 1
        fence = max(0, self._clicks[partition] - (self._random.randrange(50) if kind < 0.1 else 0))
        listed = self.config.topics.recommendations
        if kind > 0.98:
            return [Output(self.changelog, key, None, partition), Output(listed, key, None)]
        if kind > 0.96:
            return [Output(self.changelog, key, b"hello", partition), Output(listed, key, b"hello")]
        now = time.time()
        answer = Recommendation(user, [fence + 1], [0.5], [0], "m", 1, partition, fence, now, now)
        return [
            Output(self.changelog, key, record(fence, partition), partition),
            Output(listed, key, encode_recommendation(answer)),
        ]

    def expected(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return user → fence of the history, and user → source of the last list, by the topics and the rules."""
        histories: dict[str, int] = {}
        newest: dict[str, int] = {}
        for received in read_to_end(self.config.kafka, self.changelog):
            _apply(histories, received.message, lambda value: History.from_bytes(value).offset, max)
        for received in read_to_end(self.config.kafka, self.config.topics.recommendations):
            _apply(newest, received.message, lambda value: decode_recommendation(value).source_offset, _last)
        return histories, newest

    def found(self, replicas: Replicas) -> tuple[dict[str, int], dict[str, int]]:
        histories = zip(USERS, replicas.histories.get(USERS), strict=True)
        newest = ((user, replicas.recommendations.get(user)) for user in USERS)
        return {u: h.offset for u, h in histories if h}, {u: r.source_offset for u, r in newest if r}


def _apply(
    kept: dict[str, int], message: Message, order: Callable[[bytes], int], choose: Callable[[int, int], int]
) -> None:
    assert message.key is not None
    user = message.key.decode()
    if message.value is None:
        kept.pop(user, None)
        return
    with suppress(BadMessage, CorruptHistoryError):
        kept[user] = choose(order(message.value), kept.get(user, -1))


def _last(new: int, _: int) -> int:
    return new


def _caught_up(replicas: Replicas, since: float) -> bool:
    """Return whether both copies hold everything that was written before this time."""
    lags = [replicas.histories.lag(), replicas.recommendations.lag()]
    return all(lag.caught_up and lag.age_s is not None and time.time() - lag.age_s > since for lag in lags)


@pytest.fixture
def deployment(tmp_path: Path, stack: Stack) -> Deployment:
    address = stack.up().kafka
    assert address is not None
    return Deployment(tmp_path, address)


def test_a_copy_is_right_after_kills_under_load_and_an_outage(deployment: Deployment, stack: Stack) -> None:
    deployment.create_topics()
    done = threading.Event()

    def load() -> None:
        while not done.wait(0.1):
            deployment.write(300)

    writer = threading.Thread(target=load)
    writer.start()
    for kills in range(2):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.integration.copying_process", *deployment.settings],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"opened\n"
            before = deployment.written
            wait_for(lambda b=before, k=kills: deployment.written > b + 1000 * (k + 1), "load")  # type: ignore[misc]
            process.kill()
    done.set()
    writer.join()
    replicas = deployment.open()
    wait_for(lambda: _caught_up(replicas, time.time() - 1), "the copies")
    expected = deployment.expected()
    assert min(map(len, expected)) > 300
    assert deployment.found(replicas) == expected

    stack.kafka.kill()
    wait_for(lambda: (replicas.histories.lag().age_s or 0) > 5, "the age to grow")
    assert deployment.found(replicas) == expected
    assert 'mindstream_replica_lag_messages{replica="histories"} 0.0' in generate_latest(deployment.registry).decode()
    stack.up()
    deployment.write(1000)
    since = time.time()
    wait_for(lambda: _caught_up(replicas, since), "the copies after the outage")
    assert deployment.found(replicas) == deployment.expected()
    replicas.close()


def test_a_topic_of_an_earlier_version_works_until_it_is_changed_and_a_replaced_one_is_noticed(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_IDENTITY_INTERVAL_S", 0.2)
    deployment.create_topics(cleanup_policy="delete", retention_ms="604800000", segment_ms="604800000")
    deployment.write(500)
    replicas, since = deployment.open(), time.time()
    wait_for(lambda: _caught_up(replicas, since), "the copies")
    assert deployment.found(replicas) == deployment.expected()
    (warning,) = [r.getMessage() for r in caplog.records if "is not compacted" in r.getMessage()]

    topic, admin = deployment.config.topics.recommendations, AdminClient(deployment.config.kafka.client_settings())
    change = re.search(rf"--entity-name {topic} --add-config '(.*)'$", warning)
    assert change is not None
    entries = [
        ConfigEntry(name, value.strip("[]"), incremental_operation=AlterConfigOpType.SET)
        for name, value in re.findall(r"([\w.]+)=(\[[^\]]*\]|[^,]*)", change[1])
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(10)
    specs = topic_specs(deployment.config.topics, deployment.config.worker.group)
    (spec,) = [spec for spec in specs if spec.name == topic]
    assert read_compaction(deployment.config.kafka, spec).warning is None

    for deleted in admin.delete_topics([topic]).values():
        deleted.result(10)
    for created in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        created.result(10)
    wait_for(lambda: deployment.changed, "the other topic")
    assert f"topic {topic} was deleted and created again" in str(deployment.changed[0])
    replicas.close()
    with pytest.raises(FatalError, match=r"service\.data_dir.*delete this folder"):
        deployment.open()
