"""Rows compared with messages: what differs, and what is the agent's work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages.items import Item, encode_item
from streams.ports import Message
from streams.processing import item_comparison
from streams.processing.item_comparison import Content, ContentReader, Differences, NewestMessages, compare

#: item id, content of its message; the offset is the position in the list.
MESSAGES = st.lists(st.tuples(st.integers(-4, 4), st.sampled_from(Content)), max_size=40)
ROWS = st.dictionaries(st.integers(-4, 4), st.integers(0, 40))


def _compare(
    messages: list[tuple[int, Content]], rows: dict[int, int], *, processed: int = 1000, complete: bool = True
) -> Differences:
    newest = NewestMessages()
    for offset, (item_id, content) in enumerate(messages):
        newest.add(item_id, offset, content)
    ids, offsets = (np.array(list(column), dtype=np.int64) for column in (rows.keys(), rows.values()))
    return compare(newest, ids, offsets, processed=processed, complete=complete)


VECTOR, REMOVAL, UNREADABLE, OTHER = Content.VECTOR, Content.REMOVAL, Content.UNREADABLE, Content.OTHER_VERSION


@pytest.mark.parametrize(
    ("messages", "rows", "written", "removed"),
    [
        ([(7, VECTOR)], {7: 0}, [], {}),
        ([(7, VECTOR), (7, VECTOR)], {7: 0}, [1], {}),  # an older vector
        ([(7, VECTOR)], {}, [0], {}),  # no row
        ([(7, VECTOR), (7, REMOVAL)], {7: 0}, [], {7: 1}),
        ([(7, VECTOR), (7, REMOVAL)], {}, [], {}),
        ([], {7: 3}, [], {7: 4}),  # the removal itself was deleted by compaction
        ([(7, VECTOR), (7, OTHER)], {7: 0}, [], {}),  # another model's vector: the row stays
        ([(7, VECTOR), (7, UNREADABLE)], {7: 0}, [], {}),
        ([(7, OTHER), (8, UNREADABLE)], {}, [], {}),
        ([(7, VECTOR)], {7: 5}, [], {}),  # the row is newer than the message that was read
    ],
)
def test_what_differs(
    messages: list[tuple[int, Content]], rows: dict[int, int], written: list[int], removed: dict[int, int]
) -> None:
    found = _compare(messages, rows)
    assert (found.written.tolist(), found.removed) == (written, removed)


def test_what_a_message_says_is_read_from_its_value() -> None:
    vector = Item(7, np.array([1, 0], np.float32), "m1")
    written = encode_item(vector)
    values = {
        written: VECTOR,
        written.replace(b'":', b'" : '): VECTOR,  # by another encoder
        encode_item(replace(vector, model_version="m2")): OTHER,
        encode_item(replace(vector, model_version="m2", title='"model_version":"m1"')): OTHER,
        b"{": UNREADABLE,
        None: REMOVAL,
    }
    reader = ContentReader("m1")
    assert {value: reader.read(Message("items", 0, 0, b"7", value)) for value in values} == values


def test_what_was_not_processed_yet_is_the_agent_s_work() -> None:
    found = _compare([(7, VECTOR), (8, VECTOR), (8, REMOVAL), (9, VECTOR)], {8: 1, 5: 3}, processed=1)
    assert (found.written.tolist(), found.removed) == ([0], {})


def test_a_topic_without_its_beginning_proves_no_removal() -> None:
    found = _compare([(7, VECTOR), (7, REMOVAL)], {7: 0, 8: 0}, complete=False)
    assert found.removed == {7: 1}


@given(MESSAGES, ROWS, st.integers(0, 41), st.booleans())
def test_as_one_item_after_the_other(
    messages: list[tuple[int, Content]], rows: dict[int, int], processed: int, complete: bool
) -> None:
    newest = {item_id: (offset, content) for offset, (item_id, content) in enumerate(messages)}
    written, removed = [], {}
    for item_id in newest.keys() | rows.keys():
        offset, content = newest.get(item_id, (None, None))
        row = rows.get(item_id)
        if offset is None:
            if complete and row is not None and row < processed:
                removed[item_id] = row + 1
        elif offset < processed and content is VECTOR and (row is None or row < offset):
            written.append(offset)
        elif offset < processed and content is REMOVAL and row is not None and row < offset:
            removed[item_id] = offset
    found = _compare(messages, rows, processed=processed, complete=complete)
    assert (found.written.tolist(), found.removed) == (sorted(written), removed)


@given(MESSAGES)
def test_processing_all_messages_leaves_no_difference(messages: list[tuple[int, Content]]) -> None:
    rows: dict[int, int] = {}
    for offset, (item_id, content) in enumerate(messages):
        if content is VECTOR:
            rows[item_id] = offset
        elif content is REMOVAL:
            rows.pop(item_id, None)
    found = _compare(messages, rows)
    assert (found.written.tolist(), found.removed) == ([], {})


def test_superseded_messages_are_dropped_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_comparison, "_CHUNK", 8)
    newest = NewestMessages()
    for offset in range(1000):
        newest.add(offset % 3, offset, VECTOR)
        assert len(newest._added) < 8
    ids, offsets, contents = newest.columns()
    assert (ids.tolist(), offsets.tolist(), contents.tolist()) == ([0, 1, 2], [999, 997, 998], [VECTOR] * 3)
