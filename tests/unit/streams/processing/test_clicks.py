"""A batch of clicks, from bytes to bytes, with index, store and producer in memory."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from itertools import count

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray
from model.serving.merge import PADDING
from streams.history import History
from streams.messages.recommendations import decode_recommendation
from streams.metrics import STAGES
from streams.ports import Message
from streams.processing.awaited import WAITS_S
from streams.processing.clicks import PendingClicks
from tests.unit.fakes import NOW, ClickWorld, CrashingRecordProducer, click_message


def _history(world: ClickWorld, user: str, partition: int = 0) -> list[int]:
    items: list[int] = History.from_bytes(world.store.records[partition][user.encode()]).items.tolist()
    return items


def test_clicks_become_histories_and_one_recommendation_per_user() -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 1), click_message(1, 8, 2), click_message(2, 7, 3)])
    assert _history(world, "7") == [1, 3]
    assert _history(world, "8") == [2]
    first, second = (decode_recommendation(o.value or b"") for o in world.sent("recommendations"))
    assert (first.user_id, first.source_partition, first.source_offset, first.history_length) == (7, 0, 2, 2)
    assert (second.user_id, second.source_offset) == (8, 1)
    assert first.model_version == "m1"
    assert first.click_ts == NOW - 8
    assert first.ts == world.now


def test_seen_items_are_left_out_and_ties_go_to_the_smaller_id() -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 1)])
    (output,) = world.sent("recommendations")
    assert decode_recommendation(output.value or b"").item_ids == [2, 3, 4]


def test_short_and_empty_recommendations_are_counted() -> None:
    world = ClickWorld(items=4)  # and top_k 3
    world.process([click_message(0, 7, 1), click_message(1, 8, 1), click_message(2, 8, 2)])
    assert (world.metrics.short_recommendations._value.get(), world.metrics.empty_recommendations._value.get()) == (
        1,
        0,
    )
    world.process([click_message(3 + i, 9, 1 + i) for i in range(4)])
    assert (world.metrics.short_recommendations._value.get(), world.metrics.empty_recommendations._value.get()) == (
        2,
        1,
    )


def test_changelog_records_stay_in_the_partition_of_their_clicks() -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 1, partition=5), click_message(0, 8, 1, partition=2)])
    assert {(o.key, o.partition) for o in world.sent("changelog")} == {(b"7", 5), (b"8", 2)}


def test_repeated_clicks_are_answered_again_but_not_counted_again() -> None:
    world = ClickWorld()
    batch = [click_message(0, 7, 1), click_message(1, 7, 2)]
    world.process(batch)
    world.process(batch)
    assert _history(world, "7") == [1, 2]
    assert len({output.value for output in world.sent("changelog")}) == 1, "the same record again"
    answers = [decode_recommendation(o.value or b"") for o in world.sent("recommendations")]
    assert [a.source_offset for a in answers] == [1, 1]
    assert world.metrics.repeats._value.get() == 2


def test_unreadable_messages_become_dead_letters_and_do_not_stop_the_rest() -> None:
    world = ClickWorld()
    broken = Message("clicks", 0, 1, b"\xff", b"{broken")
    null = Message("clicks", 0, 2, b"9", None)
    world.process([click_message(0, 7, 1), broken, null, click_message(3, 7, 2)])
    assert _history(world, "7") == [1, 2]
    first, second = world.sent("dead-letters")
    assert (first.key, first.value) == (b"\xff", b"{broken")
    headers = dict(first.headers)
    assert (headers["reason"], headers["topic"], headers["partition"], headers["offset"]) == (
        b"not_json",
        b"clicks",
        b"0",
        b"1",
    )
    assert dict(second.headers)["reason"] == b"null_value"
    assert second.value is None


def test_users_without_a_known_item_get_no_recommendation_and_are_counted() -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 999)])
    assert world.sent("recommendations") == []
    assert _history(world, "7") == [999]
    assert world.metrics.unusable._value.get() == 1


def test_an_item_published_later_counts_through_its_published_vector() -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 999)])
    world.memory.upsert(np.array([999]), np.array([[0, 0, 1, 0, 0, 0]], dtype=np.float32))
    world.process([click_message(1, 7, 999)])
    assert world.sent("recommendations") == [], "an id counts as unknown for a second"
    world.now += 1.1
    world.process([click_message(2, 7, 999)])
    (output,) = world.sent("recommendations")
    assert decode_recommendation(output.value or b"").item_ids[0] == 3


def _later(world: ClickWorld, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let time pass, and the agent maintain its partitions."""
    now = time.monotonic() + seconds
    monkeypatch.setattr(time, "monotonic", lambda: now)
    world.now += seconds
    world.processor.answer_awaiting()


def test_a_click_on_an_item_whose_vector_arrives_later_is_answered_without_another_click(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 999), click_message(1, 8, 1), click_message(2, 8, 999)])
    (known_only,) = world.sent("recommendations")
    assert decode_recommendation(known_only.value or b"").item_ids[0] not in (1, 3)
    world.processor.answer_awaiting()
    _later(world, monkeypatch, 1.1)
    assert len(world.sent("recommendations")) == 1, "no vector, no answer"
    world.memory.upsert(np.array([999]), np.array([[0, 0, 1, 0, 0, 0]], dtype=np.float32))
    _later(world, monkeypatch, 2.1)
    answers = [decode_recommendation(output.value or b"") for output in world.sent("recommendations")[1:]]
    assert [(a.user_id, a.source_offset, a.item_ids[0]) for a in answers] == [(7, 0, 3), (8, 2, 3)]
    assert [len(records) for records in world.store.records.values()] == [2]
    assert len({(output.key, output.value) for output in world.sent("changelog")}) == 2, "no click is applied twice"
    _later(world, monkeypatch, 100.0)
    assert len(world.sent("recommendations")) == 3, "each is answered once"
    assert world.metrics.answered_later._value.get() == 2
    assert world.metrics.clicks._value.get() == 3


def test_a_user_for_whom_nothing_is_found_gets_no_list_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ClickWorld()
    search = world.memory.search

    def without_a_part(queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        ids, scores = search(queries, limit)
        ids[queries[:, 1] > 0] = PADDING  # no path of the graph leads to where item 2 is
        return ids, scores

    monkeypatch.setattr(world.memory, "search", without_a_part)
    world.process([click_message(0, 7, 1), click_message(1, 8, 2)])
    for _ in range(3):
        _later(world, monkeypatch, 6.0)
    assert [output.key for output in world.sent("recommendations")] == [b"7"]
    assert (world.metrics.unusable._value.get(), world.metrics.answered_later._value.get()) == (0, 0)
    monkeypatch.setattr(world.memory, "search", search)
    _later(world, monkeypatch, 6.0)
    assert [output.key for output in world.sent("recommendations")] == [b"7", b"8"]
    assert len(world.processor.awaiting) == 0


def test_a_vector_that_never_arrives_is_waited_for_a_limited_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 999)])
    for _ in WAITS_S:
        assert len(world.processor.awaiting) == 1
        _later(world, monkeypatch, WAITS_S[-1])
    assert len(world.processor.awaiting) == 0
    assert world.processor.awaiting.next_due_at == math.inf
    assert world.metrics.vectors_missing._value.get() == 1


def test_a_fault_while_users_are_answered_later_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 999)])
    world.memory.upsert(np.array([999]), np.array([[0, 0, 1, 0, 0, 0]], dtype=np.float32))
    for _ in range(2 * len(WAITS_S)):
        world.index.failures = 1
        _later(world, monkeypatch, 1.1)  # no click fails because of it
    _later(world, monkeypatch, 1.1)
    assert len(world.sent("recommendations")) == 1


def test_clicks_that_another_worker_left_waiting_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ClickWorld()
    clicks = [click_message(0, 7, 999), click_message(1, 8, 1)]
    first.process(clicks)
    owner = ClickWorld()
    owner.store.records = first.store.records
    owner.memory.upsert(np.array([999]), np.array([[0, 0, 1, 0, 0, 0]], dtype=np.float32))
    owner.processor.answer_again(clicks[:1], unanswered=True)
    owner.processor.answer_again(clicks[1:], unanswered=False)
    assert owner.processor.awaiting.offsets(0, 9) == [0, 1]
    _later(owner, monkeypatch, 1.1)
    answers = [decode_recommendation(output.value or b"") for output in owner.sent("recommendations")]
    assert [(a.user_id, a.source_offset) for a in answers] == [(7, 0), (8, 1)]
    assert owner.sent("changelog") == first.sent("changelog")


def test_a_vector_that_another_workers_user_waited_for_is_awaited_also_behind_a_newer_click(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = ClickWorld()
    clicks = [click_message(0, 7, 999), click_message(1, 7, 1)]
    first.process(clicks)
    owner = ClickWorld()
    owner.store.records = first.store.records
    owner.processor.answer_again([clicks[o] for o in first.processor.awaiting.offsets(0, 9)], unanswered=True)
    _later(owner, monkeypatch, 1.1)
    answered = len(owner.sent("recommendations"))
    owner.memory.upsert(np.array([999]), np.array([[0, 0, 1, 0, 0, 0]], dtype=np.float32))
    _later(owner, monkeypatch, 2.1)
    (answer,) = owner.sent("recommendations")[answered:]
    assert decode_recommendation(answer.value or b"").source_offset == 1
    assert len(owner.processor.awaiting) == 0


def test_a_user_whose_history_was_removed_meanwhile_is_not_answered_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 999)])
    for records in world.store.records.values():
        records.clear()
    world.memory.upsert(np.array([999]), np.array([[0, 0, 1, 0, 0, 0]], dtype=np.float32))
    _later(world, monkeypatch, 1.1)
    assert world.sent("recommendations") == []
    assert len(world.sent("changelog")) == 1, "no history is made again"
    assert len(world.processor.awaiting) == 0


def test_an_unknown_item_is_masked_not_a_zero_click() -> None:
    world = ClickWorld()
    world.process([click_message(0, 7, 1), click_message(1, 7, 999), click_message(2, 7, 2)])
    interests, usable, unknown = world.engine.interests([np.array([1, 999, 2])])
    assert (usable.tolist(), set(unknown)) == ([0], {999})
    np.testing.assert_allclose(interests[0, 0], [0.5, 0.5, 0, 0, 0, 0])


def test_nothing_changes_while_milvus_is_unavailable() -> None:
    world = ClickWorld(failures=2)
    batch = [click_message(0, 7, 1)]
    for _ in range(2):
        with pytest.raises(TransientError):
            world.process(batch)
    assert world.producer.sent == []
    assert world.store.records == {}
    world.process(batch)
    assert _history(world, "7") == [1]


@given(
    clicks=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=12),
    survivors=st.integers(0, 24),
)
def test_a_crash_between_any_two_messages_loses_and_duplicates_nothing(
    clicks: list[tuple[int, int]], survivors: int
) -> None:
    """Some of a batch's messages reach Kafka, the process dies, the next owner restores the changelog and repeats."""
    batch = [click_message(offset, user, item) for offset, (user, item) in enumerate(clicks)]
    crashed = ClickWorld(producer=CrashingRecordProducer(survivors))
    try:
        crashed.process(batch)
    except TransientError:
        assert crashed.store.records == {}, "the store is never ahead of the changelog"
    owner = ClickWorld(producer=crashed.producer)
    for output in crashed.sent("changelog"):
        owner.store.write(0, {output.key or b"": output.value or b""}, [0])
    owner.process(batch)
    for user in {user for user, _ in clicks}:
        expected = [item for u, item in clicks if u == user][-4:]
        assert _history(owner, str(user)) == expected
        newest = max(offset for offset, (u, _) in enumerate(clicks) if u == user)
        answers = [decode_recommendation(o.value or b"") for o in owner.sent("recommendations")]
        assert max(a.source_offset for a in answers if a.user_id == user) == newest


_BATCHES = st.lists(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=1, max_size=4), min_size=1, max_size=6
)


def _batches(chosen: list[list[tuple[int, int]]]) -> list[list[Message]]:
    offsets = count()
    return [[click_message(next(offsets), user, item) for user, item in batch] for batch in chosen]


@given(_BATCHES, st.lists(st.booleans(), min_size=40, max_size=40), st.data())
def test_starting_the_next_batch_ahead_changes_nothing(
    chosen: list[list[tuple[int, int]]], failing: list[bool], data: st.DataObject
) -> None:
    """The same bytes are sent in the same order, whichever calls to Milvus fail, with and without a batch ahead."""
    batches = _batches(chosen)
    plain, ahead = ClickWorld(), ClickWorld()
    for batch in batches:
        plain.process(batch)
    fails = iter(failing)
    pending: PendingClicks | None = None
    for batch, next_batch in zip(batches, [*batches[1:], None], strict=True):
        while True:
            sent = len(ahead.producer.sent)
            next_pending = None
            ahead.index.failures = next(fails, False)
            try:
                pending = pending or ahead.processor.start(batch)
                if next_batch is not None and data.draw(st.booleans()):
                    with suppress(TransientError):
                        next_pending = ahead.processor.start(next_batch, pending)
                ahead.processor.finish(pending)
            except TransientError:
                assert len(ahead.producer.sent) == sent, "nothing is sent before the search is answered"
                pending = None
            else:
                break
        pending = next_pending
    assert ahead.store.records == plain.store.records
    assert ahead.producer.sent == plain.producer.sent


@pytest.mark.parametrize("waited", [True, False])
def test_each_stage_of_a_batch_is_timed_once(waited: bool) -> None:
    world = ClickWorld()
    pending = world.processor.start([click_message(0, 7, 1)])
    if waited:
        pending.wait()
    world.processor.finish(pending)
    (family,) = world.metrics.stages.collect()
    counts = {s.labels["stage"]: s.value for s in family.samples if s.name.endswith("_count")}
    assert counts == dict.fromkeys(STAGES, 1)


def test_a_discarded_pending_batch_leaves_nothing() -> None:
    world = ClickWorld()
    abandoned, behind = _batches([[(7, 1)], [(7, 2)]])
    world.processor.start(behind, world.processor.start(abandoned))
    world.process(behind)
    assert _history(world, "7") == [2]
    assert len(world.sent("recommendations")) == 1


def test_batch_equals_single_clicks() -> None:
    rng = np.random.default_rng(0)
    messages = [click_message(i, int(rng.integers(5)), int(rng.integers(1, 7))) for i in range(60)]
    together, alone = ClickWorld(), ClickWorld()
    together.process(messages)
    for message in messages:
        alone.process([message])
    assert together.store.records == alone.store.records

    def last(world: ClickWorld) -> dict[bytes | None, bytes]:
        answers = {}
        for output in world.sent("recommendations"):
            answers[output.key] = orjson.dumps(orjson.loads(output.value or b"")["item_ids"])
        return answers

    assert last(together) == last(alone)
