"""A Kafka cluster in this process, librdkafka's mock: no Java, no network beyond this machine."""

from __future__ import annotations

import time
from pathlib import Path

import click
import confluent_kafka as ck
from click.testing import CliRunner, Result

from configs.loader import load_replay
from configs.schema import ReplayConfig

Messages = list[tuple[int, bytes, bytes | None]]


class MockKafka:
    """A mock cluster; topics are created on request, with four partitions."""

    def __init__(self) -> None:
        # The mock cluster exists as long as this producer.
        self.owner = ck.Producer({"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1, "log_level": 0})
        broker = next(iter(self.owner.list_topics(timeout=5).brokers.values()))
        self.address = f"{broker.host}:{broker.port}"

    def create(self, topic: str) -> None:
        self.owner.list_topics(topic, timeout=5)

    def read(self, topic: str, count: int) -> Messages:
        """Return (partition, key, value) of all messages, at least `count` unless 20 seconds pass."""
        consumer = ck.Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "test",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for partition in range(4)])
        found: Messages = []
        ended: set[int] = set()
        deadline = time.monotonic() + 20
        while (len(found) < count or len(ended) < 4) and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            partition = message.partition() or 0
            if message.error():
                ended.add(partition)
            else:
                found.append((partition, message.key() or b"", message.value()))
        consumer.close()
        return found


def run(command: click.Command, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def config(address: str, *overrides: str) -> ReplayConfig:
    return load_replay(None, overrides, {"MINDSTREAM_KAFKA": address})
