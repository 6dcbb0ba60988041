"""The item agent's checks between batches."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest

from configs.errors import FatalError, TransientError
from streams.kafka.topics import TopicIdentity
from streams.recall.memory import MemoryIndex
from streams.worker.item_agent import ItemHooks, ItemTopicWatch


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.answers: list[TopicIdentity | Exception] = []
        self.bound: list[tuple[str, str]] = []
        index = MemoryIndex("m1", 2)
        index.bind = lambda topic, topic_id: self.bound.append((topic, topic_id))  # type: ignore[method-assign]
        self.watch = ItemTopicWatch("items", self._identify, 2, index, clock=lambda: self.now)

    def _identify(self) -> TopicIdentity:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_added_partitions_are_noticed_within_half_a_minute() -> None:
    world = World()
    world.answers = [TopicIdentity("id", 2), TopicIdentity("id", 2), TopicIdentity("id", 3)]
    for _ in range(10):
        world.watch.check()
    assert len(world.answers) == 2, "one request in half a minute"
    world.now = 31.0
    world.watch.check()
    assert world.bound == [("items", "id")] * 2
    world.now = 62.0
    with pytest.raises(FatalError, match=r"3 partitions.* 2: set topics\.item_partitions .* publish all items again"):
        world.watch.check()


def test_an_unavailable_kafka_is_asked_again_soon() -> None:
    world = World()
    world.answers = [TransientError("Kafka", "unavailable"), TopicIdentity("id", 2)]
    with pytest.raises(TransientError):
        world.watch.check()
    world.watch.check()
    assert world.bound == [("items", "id")]


def test_rows_are_repaired_only_after_the_topic_was_found_to_be_the_same() -> None:
    world = World()
    world.answers = [TopicIdentity("id", 2), TransientError("Kafka", "unavailable"), TopicIdentity("id", 2)]
    world.watch.check()
    repairer, comparer = Mock(), Mock(found="suspects")
    hooks = ItemHooks(MemoryIndex("m1", 2), Mock(), cast("Any", comparer), repairer, world.watch)
    hooks.maintain([0])
    assert not repairer.repair.called
    hooks.maintain([0])
    repairer.repair.assert_called_once_with("suspects")
    comparer.repaired.assert_called_once_with()
    comparer.found = None
    hooks.maintain([0])
    assert world.answers == [], "without suspects, the topic is checked once in a while"
