"""What the item agent does between batches."""

from __future__ import annotations

import pytest

from configs.errors import FatalError, TransientError
from streams.worker.item_agent import PartitionCount


def test_added_partitions_are_noticed_within_half_a_minute() -> None:
    now, answers = [0.0], [2, 2, 3]
    count = PartitionCount("items", lambda: answers.pop(0), 2, clock=lambda: now[0])
    for _ in range(10):
        count.check()
    assert len(answers) == 3, "one request in half a minute"
    for now[0] in (31.0, 62.0):
        count.check()
    now[0] = 93.0
    with pytest.raises(FatalError, match=r"3 partitions.*says 2; set topics\.item_partitions to 3 and publish"):
        count.check()


def test_an_unavailable_kafka_does_not_stop_the_agent() -> None:
    def fail() -> int:
        raise TransientError("Kafka", "unavailable")

    now = [0.0]
    count = PartitionCount("items", fail, 2, clock=lambda: now[0])
    now[0] = 31.0
    count.check()
