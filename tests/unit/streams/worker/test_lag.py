"""The lag metric; `KafkaLag` is tested on a real broker."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from prometheus_client import CollectorRegistry, Gauge

from streams.worker.lag import LagGauge, PartitionLag


class Reader:
    """A topic whose partitions end with offsets that hold no messages, from `ends` on."""

    def __init__(self, ends: Mapping[int, int]) -> None:
        self.ends = dict(ends)
        self.asked: list[tuple[int, int]] = []

    def partition_lags(self) -> Mapping[int, PartitionLag]:
        raise NotImplementedError

    def readable(self, partition: int, offset: int) -> bool:
        self.asked.append((partition, offset))
        return offset < self.ends[partition]

    def owned_by_others(self) -> Collection[int]:
        raise NotImplementedError


class World:
    def __init__(self, ends: Mapping[int, int]) -> None:
        self.reader = Reader(ends)
        self.gauge = Gauge("lag", "lag", ["partition"], registry=CollectorRegistry())
        self.lag = LagGauge(self.reader, self.gauge)

    def show(self, lags: Mapping[int, PartitionLag]) -> dict[str, float]:
        self.lag.show(lags)
        return {s.labels["partition"]: s.value for m in self.gauge.collect() for s in m.samples}


def test_nothing_is_shown_before_something_is_known() -> None:
    assert World({}).show({}) == {}


def test_offsets_without_messages_are_no_lag_and_are_asked_about_once() -> None:
    world = World({0: 9, 1: 50})
    lags = {0: PartitionLag(9, 10), 1: PartitionLag(7, 51)}
    assert world.show(lags) == {"0": 1.0, "1": 44.0}
    assert world.reader.asked == [], "it may be processed in a moment"
    for _ in range(5):
        assert world.show(lags) == {"0": 0.0, "1": 44.0}
    assert world.reader.asked == [(0, 9), (1, 7)]


def test_it_is_asked_again_when_the_end_or_the_commit_has_moved() -> None:
    world = World({0: 9})
    for _ in range(2):
        world.show({0: PartitionLag(9, 10)})
    world.reader.ends = {0: 12}
    assert world.show({0: PartitionLag(9, 12)}) == {"0": 3.0}
    assert world.show({0: PartitionLag(9, 12)}) == {"0": 3.0}
    assert world.reader.asked == [(0, 9), (0, 9)]
    for _ in range(2):
        world.show({0: PartitionLag(11, 12)})
    assert world.reader.asked[2:] == [(0, 11)]


def test_a_partition_that_comes_back_is_asked_about_again() -> None:
    world = World({0: 9})
    for _ in range(2):
        world.show({0: PartitionLag(9, 10)})
    assert world.show({}) == {}
    assert world.show({0: PartitionLag(9, 10)}) == {"0": 1.0}
    assert world.show({0: PartitionLag(9, 10)}) == {"0": 0.0}


def test_many_quiet_partitions_are_asked_about_a_few_at_a_time() -> None:
    world = World(dict.fromkeys(range(10), 9))
    lags = dict.fromkeys(range(10), PartitionLag(9, 10))
    asked = []
    for _ in range(5):
        world.show(lags)
        asked.append(len(world.reader.asked))
    assert asked == [0, 4, 8, 10, 10]
