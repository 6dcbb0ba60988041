"""The item topic compared with the rows in Milvus: every test breaks one thing."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from model.serving.norms import Norms
from streams.messages.items import Item, encode_item
from streams.partitioning import KeyPartitions
from streams.ports import Message
from streams.processing.item_decoder import ItemDecoder
from streams.tools.audit_clicks import KeptDeadLetter, content_hash
from streams.tools.audit_items import ItemRef, audit_items

DECODER = ItemDecoder("m1", 2, Norms(0.99, 1.01, unit=True), KeyPartitions("any", 2))
VECTOR = np.array([1.0, 0.0], dtype=np.float32)


def _item(offset: int, item_id: int, version: str | None = "m1", partition: int = 0) -> Message:
    """Return the message of an item; without a version it is a removal."""
    value = None if version is None else encode_item(Item(item_id, VECTOR, version))
    return Message("items", partition, offset, str(item_id).encode(), value)


class Topics:
    """Items 1 and 2 are published, 3 is removed, 4 is of another model, the newest message of 5 is broken."""

    def __init__(self) -> None:
        broken = Message("items", 0, 9, b"5", b"broken")
        self.messages = [
            _item(3, 1),
            _item(5, 3, None),
            _item(7, 1),
            _item(2, 2, partition=1),
            _item(8, 4, "m2"),
            broken,
        ]
        kept = KeptDeadLetter("not_json", content_hash(broken.key, broken.value))
        self.dead_letters: dict[ItemRef, KeptDeadLetter] = {(0, 9): kept}
        self.rows: dict[int, ItemRef] = {1: (0, 7), 2: (1, 2), 4: (0, 1), 5: (0, 2)}
        self.committed: dict[int, int | None] = {0: 10, 1: 3}
        self.retained_since = 0.0

    def figures(self) -> dict[str, int]:
        found = audit_items(
            self.messages,
            self.rows,
            self.dead_letters,
            self.committed,
            DECODER.decode,
            self.retained_since,
        )
        return {name: count for name, count in asdict(found).items() if count}


@pytest.fixture
def topics() -> Topics:
    return Topics()


def test_rows_that_are_as_published_pass(topics: Topics) -> None:
    assert topics.figures() == {"count": 2}


def test_a_missing_row_is_found(topics: Topics) -> None:
    del topics.rows[2]
    assert topics.figures() == {"count": 2, "rows_missing": 1}


@pytest.mark.parametrize("source", [(0, 3), (1, 7)])
def test_a_row_of_an_older_message_is_found(topics: Topics, source: ItemRef) -> None:
    topics.rows[1] = source
    assert topics.figures() == {"count": 2, "rows_stale": 1}


@pytest.mark.parametrize("item_id", [3, 77], ids=["removed", "never published"])
def test_a_row_without_a_published_item_is_found(topics: Topics, item_id: int) -> None:
    topics.rows[item_id] = (0, 1)
    assert topics.figures() == {"count": 2, "rows_unfounded": 1}


def test_messages_that_the_worker_has_not_committed_are_found(topics: Topics) -> None:
    topics.committed = {0: 8, 1: None}
    assert topics.figures() == {"count": 2, "lag": 3}


@pytest.mark.parametrize("version", ["m1", None], ids=["vector", "removal"])
def test_an_item_in_two_partitions_is_not_judged(topics: Topics, version: str | None) -> None:
    """The audit cannot tell which message was processed last. Only `topics.partitioner: any` lets it happen."""
    topics.messages.append(_item(0, 1, version, partition=1))
    for row in ((0, 7), (1, 0), None):
        topics.rows = {2: (1, 2), 4: (0, 1), 5: (0, 2)} | ({1: row} if row else {})
        assert topics.figures() == {"count": 1}


def test_a_broken_message_without_a_dead_letter_is_found(topics: Topics) -> None:
    topics.dead_letters.clear()
    assert topics.figures() == {"count": 2, "unaccounted": 1}


def test_a_dead_letter_that_retention_may_have_deleted_is_not_missed(topics: Topics) -> None:
    """The topic of items is compacted and keeps broken messages for good; that of dead letters does not."""
    topics.dead_letters.clear()
    topics.retained_since = 1.0
    assert topics.figures() == {"count": 2, "unverified": 1}


def test_dead_letters_without_a_reason_or_without_their_bytes_are_found(topics: Topics) -> None:
    topics.dead_letters = {(0, 9): KeptDeadLetter("not_json", 1), (0, 7): KeptDeadLetter("not_json", None)}
    assert topics.figures() == {"count": 2, "dead_letters_different": 1, "dead_letters_unfounded": 1}


def test_a_dead_letter_of_another_model_s_item_is_not_judged(topics: Topics) -> None:
    topics.dead_letters[0, 8] = KeptDeadLetter("wrong_norm", None)
    assert topics.figures() == {"count": 2}


def test_an_item_that_milvus_refused_has_a_dead_letter_and_no_row(topics: Topics) -> None:
    topics.messages.append(_item(10, 6))
    topics.committed[0] = 11
    topics.dead_letters[0, 10] = KeptDeadLetter("refused", None)
    assert topics.figures() == {"count": 2}
