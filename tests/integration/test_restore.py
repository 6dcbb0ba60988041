"""Histories on a real Kafka: records that a zombie overwrites are repaired before compaction; a standby catches up."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from configs.loader import load_worker
from configs.schema import Kafka
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import read_to_end
from streams.kafka.topics import changelog_topic, create_topics, topic_specs
from streams.ports import Output
from streams.state.changelog import Changelog
from streams.state.restore import Restorer
from streams.state.store import PartitionStores
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for
from tests.unit.changelog import record

pytestmark = pytest.mark.integration

#: Compaction without the delay that production uses.
IMMEDIATE_COMPACTION = {"min.compaction.lag.ms": "0", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}


class Owner:
    """The owner of partition 1 of a changelog topic of its own, and a zombie that writes to it."""

    def __init__(self, folder: Path, address: str, topic_config: dict[str, str]) -> None:
        group = f"t{uuid.uuid4().hex[:8]}"
        config = load_worker(None, [f"kafka.bootstrap_servers={address}", "topics.partitions=2"], {})
        self.topic = changelog_topic(group)
        (spec,) = [spec for spec in topic_specs(config.topics, group) if spec.name == self.topic]
        create_topics(config.kafka, [dataclasses.replace(spec, config=spec.config | topic_config)], 1)
        self.kafka: Kafka = config.kafka
        self.producer = KafkaRecordProducer(config.kafka, 2**20, "murmur2")
        self.stores = PartitionStores(folder)
        self.changelog = Changelog(config.kafka, self.topic)
        self.restorer = Restorer(self.changelog, self.stores, self.producer)
        self.restorer.acquire([1])
        self._zombie = KafkaRecordProducer(config.kafka, 2**20, "murmur2")

    def write(self, user: bytes, fence: int) -> None:
        new = record(fence, 1)
        self.stores.write(1, {user: new}, self.producer.send([Output(self.topic, user, new, 1)]))

    def zombie_writes(self, user: bytes, fence: int) -> None:
        self._zombie.send([Output(self.topic, user, record(fence, 1), 1)])

    def maintain(self) -> int:
        return self.restorer.maintain([1])

    def log(self) -> list[tuple[bytes | None, bytes | None]]:
        return [(m.key, m.value) for m, _, _ in read_to_end(self.kafka, self.topic)]


@pytest.fixture
def owner(tmp_path: Path, kafka: str) -> Iterator[Owner]:
    new_owner = Owner(tmp_path, kafka, {})
    yield new_owner
    new_owner.stores.close()


def test_the_end_of_the_changelog_is_the_offset_after_the_last_own_record(owner: Owner) -> None:
    """One request then shows that no other worker has written."""
    for fence in range(3):
        owner.write(b"a", fence)
        assert owner.changelog.end_offsets([0, 1]) == {0: 0, 1: fence + 1}
        assert owner.stores.offset(1) == fence
        assert owner.maintain() == 0


def test_an_open_transaction_does_not_hide_the_end(owner: Owner) -> None:
    producer = Producer(owner.kafka.client_settings(**{"transactional.id": owner.topic}))
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(owner.topic, b"of another producer", key=b"ada", partition=1)
    producer.flush()
    assert owner.changelog.end_offsets([0, 1]) == {0: 0, 1: 1}
    producer.abort_transaction()


def test_the_owner_repairs_what_a_zombie_overwrites(owner: Owner, tmp_path: Path) -> None:
    owner.write(b"a", 9)
    owner.write(b"b", 9)
    owner.zombie_writes(b"a", 5)
    owner.zombie_writes(b"b", 12)
    owner.write(b"c", 9)
    assert owner.maintain() == 3
    assert owner.log()[-1] == (b"a", record(9, 1))
    assert owner.stores.read(1, [b"a", b"b"]) == [record(9, 1), record(12, 1)], "the record that is ahead is adopted"
    assert owner.maintain() == 0
    assert len(owner.log()) == 6, "the second call writes nothing"

    other = PartitionStores(tmp_path / "other")  # after a disk loss
    restorer = Restorer(owner.changelog, other, owner.producer)
    assert restorer.acquire([0, 1]) == 6
    assert other.read(1, [b"a", b"b", b"c"]) == owner.stores.read(1, [b"a", b"b", b"c"])
    assert (other.offset(0), other.offset(1)) == (-1, 5)
    assert len(owner.log()) == 6, "a new store reads the repair, and repairs nothing"
    other.close()


def test_compaction_keeps_the_newer_record(tmp_path: Path, kafka: str) -> None:
    owner = Owner(tmp_path, kafka, IMMEDIATE_COMPACTION)
    owner.write(b"a", 9)
    owner.zombie_writes(b"a", 5)
    owner.maintain()

    def compacted() -> bool:
        owner.write(b"filler", owner.stores.offset(1))  # a segment is closed when a message is written after it
        return sum(key == b"a" for key, _ in owner.log()) == 1

    wait_for(compacted, "compaction")
    assert (b"a", record(9, 1)) in owner.log()
    other = PartitionStores(tmp_path / "other")
    restored = Restorer(owner.changelog, other, owner.producer).acquire([1])
    assert 2 <= restored <= owner.stores.offset(1), "offsets are missing, but the end is found"
    assert other.read(1, [b"a"]) == [record(9, 1)]
    assert other.offset(1) == owner.stores.offset(1)
    other.close()
    owner.stores.close()


def _caught_up(log: str, partitions: int) -> bool:
    """Return whether a standby has caught up with the partitions that it follows now, `partitions` of them."""
    _, _, last = log.rpartition("standby for partitions ")
    found = re.match(r"([\d, ]+); (\d+) of them", last)
    return found is not None and len(found[1].split(",")) == partitions and last.count("caught up") == int(found[2])


def test_a_standby_acquires_partitions_without_a_full_restore(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    site = Site(tmp_path, kafka, milvus_lite)
    site.create_topics()
    site.fill_index()
    clicks = ["--agents", "clicks"]
    timeout = ["--set", "worker.session_timeout=6"]

    def log(name: str) -> str:
        return site.log(name).read_text()

    with site.worker(*clicks, *timeout, name="a") as first:
        # Two partitions stay here when another worker joins.
        site.producer.send([site.click(u, 1 + u % 300) for u in range(100)])
        wait_for(lambda: audit_kafka(site.config).ok, "the histories")
        with site.worker(*clicks, *timeout, "--set", "worker.standby=true", name="b"):
            wait_for(lambda: _caught_up(log("b"), partitions=2), "the standby")
            first.kill()
            wait_for(lambda: "acquired partitions 0, 1, 2, 3: " in log("b"), "the acquisition")
            assert "acquired partitions 0, 1, 2, 3: restored 0 records" in log("b")
            site.producer.send([site.click(u, 1 + u % 300) for u in range(100)])
            wait_for(lambda: audit_kafka(site.config).ok and audit_kafka(site.config).clicks == 200, "more clicks")
    site.drop_index()
