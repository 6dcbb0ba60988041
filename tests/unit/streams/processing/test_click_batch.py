"""A batch of clicks as values, without a processor."""

from __future__ import annotations

import numpy as np
import pytest

from model.serving.merge import Candidates
from streams.errors import PartitionLost
from streams.history import History
from streams.messages.recommendations import decode_recommendation
from streams.partitioning import KeyPartitions, murmur2
from streams.ports import Message
from streams.processing.click_batch import ClickBatch, apply, decode
from streams.processing.memory import MemoryHistoryStore
from tests.unit.fakes import NOW, click_message

ANY = KeyPartitions("any", 1)


def _batch(*messages: Message, store: MemoryHistoryStore | None = None, length: int = 4) -> ClickBatch:
    users, dead_letters = decode(messages, ANY)
    return ClickBatch(apply(users, store or MemoryHistoryStore(), {}, length), dead_letters)


def _stored(offset: int, *items: int, user: bytes = b"7") -> MemoryHistoryStore:
    store = MemoryHistoryStore()
    store.write(0, {user: History(0, offset, np.array(items, dtype=np.int64)).to_bytes()}, [0])
    return store


def test_clicks_are_grouped_by_partition_and_user() -> None:
    users, dead_letters = decode(
        [click_message(0, 7, 1), click_message(0, 7, 5, partition=1), click_message(1, 8, 2), click_message(2, 7, 3)],
        ANY,
    )
    assert [(u.partition, u.key, u.clicks) for u in users] == [
        (0, b"7", [(0, 1), (2, 3)]),
        (1, b"7", [(0, 5)]),
        (0, b"8", [(1, 2)]),
    ]
    assert [u.newest.item_id for u in users] == [3, 5, 2]
    assert dead_letters == []


def test_unreadable_messages_are_kept_with_their_reason() -> None:
    broken = Message("clicks", 0, 1, b"7", b"{")
    batch = _batch(click_message(0, 7, 1), broken)
    assert [(d.message, d.reason) for d in batch.dead_letters] == [(broken, "not_json")]
    assert (batch.received, batch.applied) == (1, 1)


def test_clicks_in_another_partition_than_their_users_are_kept_with_their_reason() -> None:
    right = murmur2(b"7") % 4
    messages = [click_message(n, 7, n + 1, partition=(right + n) % 4) for n in range(4)]
    users, dead_letters = decode([*messages, *messages], KeyPartitions("murmur2", 4))
    assert [(u.partition, u.clicks) for u in users] == [(right, [(0, 1), (0, 1)])]
    assert [(d.message, d.reason) for d in dead_letters] == [(m, "wrong_partition") for m in [*messages[1:]] * 2]


def test_clicks_at_or_below_the_fence_are_received_and_not_applied() -> None:
    batch = _batch(click_message(4, 7, 1), click_message(5, 7, 2), click_message(6, 7, 3), store=_stored(5, 9))
    (update,) = batch.updates
    assert update.history == History(0, 6, np.array([9, 3], dtype=np.int64))
    assert (batch.received, batch.applied) == (3, 1)


def test_a_batch_that_changes_nothing_has_the_same_record_and_is_answered() -> None:
    store = _stored(5, 9, 2)
    batch = _batch(click_message(5, 7, 2), store=store)
    (record,) = batch.records("changelog")
    assert [record.value] == store.read(0, [b"7"]), "it shows the owner of the partition who has answered"
    found = Candidates(np.array([4]), np.array([0.5], dtype=np.float32), np.array([0]))
    (output,) = batch.recommendations("recommendations", [found], 50, "m1", NOW)
    answer = decode_recommendation(output.value or b"")
    assert (answer.source_partition, answer.source_offset, answer.history_length) == (0, 5, 2)
    assert (answer.item_ids, answer.ts, output.key, output.partition) == ([4], NOW, b"7", None)
    assert answer.top_k == 50, "the audit then knows that the catalogue had no more"


def test_users_without_candidates_get_no_recommendation() -> None:
    assert _batch(click_message(0, 7, 99)).recommendations("recommendations", [None], 50, "m1", 0.0) == []


def test_the_overlay_replaces_what_the_store_has() -> None:
    first = _batch(click_message(6, 7, 1), store=_stored(5, 9))
    users, _ = decode([click_message(7, 7, 2), click_message(8, 8, 3)], ANY)
    updates = apply(users, _stored(5, 9), first.overlay(), 4)
    assert [u.history.items.tolist() for u in updates] == [[9, 1, 2], [3]]


def test_a_lost_partition_abandons_the_batch() -> None:
    class Lost(MemoryHistoryStore):
        def read(self, partition: int, keys: object) -> list[bytes | None]:
            raise PartitionLost("revoked")

    with pytest.raises(PartitionLost):
        _batch(click_message(0, 7, 1), store=Lost())
