"""A batch of item messages, over a memory index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from configs.errors import TransientError
from model.serving.norms import Norms
from streams.messages.dead_letters import DeadLetterTopic
from streams.messages.items import Item, encode_item
from streams.metrics import ItemMetrics
from streams.partitioning import KeyPartitions
from streams.ports import Message
from streams.processing.item_decoder import ItemDecoder
from streams.processing.items import MAX_UNSEALED_UPSERTS, SEAL_AFTER_UPSERTS, ItemProcessor
from streams.processing.memory import MemoryRecordProducer
from streams.recall.memory import MemoryIndex
from tests.unit.fakes import FailingIndex


class ItemWorld:
    def __init__(self, failures: int = 0) -> None:
        self.memory = MemoryIndex("m1", 2)
        self.producer = MemoryRecordProducer()
        self.metrics = ItemMetrics(CollectorRegistry())
        self.index = FailingIndex(self.memory, failures)
        self.processor = ItemProcessor(
            self.index,
            self.producer,
            dead_letters=DeadLetterTopic("dead-letters", 10**7),
            decoder=ItemDecoder("m1", 2, Norms(0.0, 10.0, unit=False), KeyPartitions("any", 1)),
            require_lease=self._require_lease,
            metrics=self.metrics,
            clock=lambda: 1010.0,
        )
        self._offset = 0
        self.leases = [True] * 100  # answers of the next calls

    def process(self, messages: Sequence[Message]) -> None:
        self.processor.finish(self.processor.start(messages))

    def _require_lease(self) -> None:
        if not self.leases.pop(0):
            raise TransientError("Kafka", "the partitions may belong to another")

    def message(self, item_id: int, vector: list[float] | None, version: str = "m1") -> Message:
        self._offset += 1
        value = None
        if vector is not None:
            value = encode_item(Item(item_id, np.array(vector, dtype=np.float32), version))
        return Message("items", 0, self._offset, str(item_id).encode(), value, timestamp=1000.0 + self._offset)

    def load(self, items: int) -> None:
        self.process([self.message(1 + n, [1, 0]) for n in range(items)])

    def ids(self) -> set[int]:
        return set(self.memory.get(np.arange(20)))


def test_freshness_is_counted_for_each_vector_that_went_into_the_index() -> None:
    world = ItemWorld(failures=1)
    batch = [world.message(1, [1, 0]), world.message(2, [0, 1]), world.message(1, [0, 2]), world.message(3, None)]
    with pytest.raises(TransientError):
        world.process(batch)
    world.process(batch)
    (family,) = world.metrics.freshness.collect()
    samples = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    assert (samples["count"], samples["sum"]) == (2.0, (1010 - 1002) + (1010 - 1003))


def test_the_last_message_of_an_item_wins() -> None:
    world = ItemWorld()
    world.process(
        [
            world.message(1, [1, 0]),
            world.message(2, [0, 1]),
            world.message(1, [0, 2]),
            world.message(2, None),
            world.message(3, None),
            world.message(3, [1, 1]),
        ]
    )
    assert world.ids() == {1, 3}
    np.testing.assert_array_equal(world.memory.get(np.array([1]))[1], [0, 2])
    removed = {item: [world.processor.removals.since(item, 0, offset) for offset in (3, 4)] for item in (1, 2, 3)}
    assert removed == {1: [False, False], 2: [True, False], 3: [False, False]}


def test_repeating_a_batch_changes_nothing() -> None:
    world = ItemWorld()
    batch = [world.message(1, [1, 0]), world.message(2, [0, 1]), world.message(2, None)]
    world.process(batch)
    world.process(batch)
    assert world.ids() == {1}


def test_a_wrong_dimension_is_a_dead_letter_and_the_others_are_processed() -> None:
    world = ItemWorld()
    world.process([world.message(1, [1, 0, 0]), world.message(2, [0, 1])])
    assert world.ids() == {2}
    (dead_letter,) = world.producer.sent
    assert dict(dead_letter.headers)["reason"] == b"wrong_dimension"
    assert b"3 numbers" in dict(dead_letter.headers)["error"]


def test_items_of_another_model_are_skipped_and_counted() -> None:
    world = ItemWorld()
    world.process([world.message(1, [1, 0, 0], version="m2")])
    assert world.ids() == set()
    assert world.producer.sent == []
    assert world.metrics.other_versions._value.get() == 1


def test_a_transient_error_is_raised_before_any_dead_letter_is_sent() -> None:
    world = ItemWorld(failures=1)
    batch = [world.message(1, [1, 0]), world.message(2, [1])]
    with pytest.raises(TransientError):
        world.process(batch)
    assert world.producer.sent == []
    world.process(batch)
    assert world.ids() == {1}
    assert len(world.producer.sent) == 1


def test_the_index_is_sealed_once_a_bulk_load_is_over() -> None:
    world = ItemWorld()
    world.load(SEAL_AFTER_UPSERTS)
    world.processor.seal_when_due()
    assert world.index.seals == 0, "some have arrived since the last call: more may follow"
    world.processor.seal_when_due()
    assert world.index.seals == 1
    world.load(1)
    world.processor.seal_when_due()
    world.processor.seal_when_due()
    assert world.index.seals == 1, "single items do not seal it again"


def test_a_load_in_bursts_is_sealed_once() -> None:
    world = ItemWorld()
    for _ in range(4):
        world.load(SEAL_AFTER_UPSERTS)
        world.processor.seal_when_due()
    world.processor.seal_when_due()
    assert world.index.seals == 1


def test_the_index_is_sealed_regularly_when_items_never_stop() -> None:
    world = ItemWorld()
    calls = 0
    while world.index.seals < 3:
        world.load(1000)
        world.processor.seal_when_due()
        calls += 1
    assert calls == 3 * MAX_UNSEALED_UPSERTS / 1000


def test_a_second_load_of_the_same_size_does_not_count_as_quiet() -> None:
    world = ItemWorld()
    world.load(SEAL_AFTER_UPSERTS)
    world.processor.seal_when_due()
    world.processor.seal_when_due()
    world.load(SEAL_AFTER_UPSERTS)
    world.processor.seal_when_due()
    assert world.index.seals == 1


def test_a_failure_to_seal_loses_nothing_and_is_retried() -> None:
    world = ItemWorld()
    world.load(SEAL_AFTER_UPSERTS)
    world.processor.seal_when_due()
    world.index.failures = 1
    world.processor.seal_when_due()
    assert world.index.seals == 0
    world.processor.seal_when_due()
    assert world.index.seals == 1


@pytest.mark.parametrize(("leases", "ids"), [([False], {2}), ([True, False], {1, 2})])
def test_the_index_is_changed_only_under_a_lease(leases: list[bool], ids: set[int]) -> None:
    world = ItemWorld()
    world.process([world.message(2, [0, 1])])
    world.leases = list(leases)
    with pytest.raises(TransientError):
        world.process([world.message(1, [1, 0]), world.message(2, None)])
    assert world.ids() == ids
