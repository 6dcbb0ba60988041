"""Partitions of keys, compared with those that librdkafka chooses, and with Kafka's own test vectors."""

from __future__ import annotations

import random

import confluent_kafka as ck
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Partitioner
from streams.errors import BadMessage
from streams.partitioning import LIBRDKAFKA, KeyPartitions, murmur2
from tests.unit.producers.mock_kafka import MockKafka

#: Partitions of a topic of `MockKafka`.
PARTITIONS = 4


@pytest.mark.parametrize(
    ("key", "hashed"),  # Kafka's UtilsTest
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    ],
)
def test_murmur2_is_that_of_kafkas_java_clients(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0x7FFFFFFF


@given(st.binary(max_size=64))
def test_murmur2_is_that_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) == aiokafka_murmur2(key) & 0x7FFFFFFF


def _fits(partitions: KeyPartitions, key: bytes, partition: int) -> bool:
    try:
        partitions.check(key, partition)
    except BadMessage as error:
        assert error.reason == "wrong_partition"
        return False
    return True


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32", "any"])
def test_each_key_belongs_to_the_partition_that_librdkafka_chooses(partitioner: Partitioner) -> None:
    rng = random.Random(1)
    keys = [*(b"%d" % n for n in range(2000)), *(rng.randbytes(rng.randint(1, 40)) for _ in range(2000))]
    kafka = MockKafka()
    kafka.create("clicks")
    chosen: dict[bytes, int] = {}
    producer = ck.Producer({"bootstrap.servers": kafka.address, "partitioner": LIBRDKAFKA[partitioner]})

    def on_delivery(error: ck.KafkaError | None, message: ck.Message) -> None:
        assert error is None
        chosen[message.key() or b""] = message.partition() or 0

    for key in keys:
        producer.produce("clicks", key=key, on_delivery=on_delivery)
    assert producer.flush(30) == 0
    assert len(chosen) == len(set(keys))
    checked = KeyPartitions(partitioner, PARTITIONS)
    other = KeyPartitions("murmur2" if partitioner == "crc32" else "crc32", PARTITIONS)
    assert all(_fits(checked, key, partition) for key, partition in chosen.items())
    assert {key: checked.target(key) for key in chosen} == chosen
    split = sum(not _fits(other, key, partition) for key, partition in chosen.items()) / len(chosen)
    assert split == pytest.approx(1 - 1 / PARTITIONS, abs=0.05), "the other partitioner chooses another partition"


def test_a_wrong_partition_is_named_with_the_remedy() -> None:
    with pytest.raises(BadMessage) as caught:
        KeyPartitions("murmur2", 8).check(b"42", 7)
    assert caught.value.reason == "wrong_partition"
    for part in ("b'42'", "partition 7", f"partition {murmur2(b'42') % 8} of 8", "partitioner=murmur2_random"):
        assert part in caught.value.detail
    assert len(caught.value.detail) < 500, "dead letters keep 500 characters"


def test_any_partitioner_is_not_checked() -> None:
    for partition in range(8):
        KeyPartitions("any", 8).check(b"42", partition)


def test_messages_of_a_key_are_in_its_partition_or_may_be_in_any() -> None:
    (only,) = KeyPartitions("murmur2", 8).of(b"42")
    assert _fits(KeyPartitions("murmur2", 8), b"42", only)
    assert list(KeyPartitions("any", 3).of(b"42")) == [0, 1, 2]
