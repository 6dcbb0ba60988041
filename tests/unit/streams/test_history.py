"""The format of a history record, and the fence."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.history import CorruptHistoryError, History, apply_clicks, fence_offset, is_user_key, newer_record

int64 = st.integers(-(2**63), 2**63 - 1)
histories = st.builds(
    History,
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**62),
    st.lists(int64, max_size=30).map(lambda ids: np.array(ids, dtype=np.int64)),
)


@given(histories)
def test_record_round_trip(history: History) -> None:
    assert History.from_bytes(history.to_bytes()) == history


def test_a_full_window_takes_less_than_200_bytes() -> None:
    assert len(History(7, 2**40, np.arange(20, dtype=np.int64)).to_bytes()) == 173


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_corrupt(record: bytes) -> None:
    try:
        History.from_bytes(record)
    except CorruptHistoryError:
        return
    assert record[0] == 1


@given(
    items=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    length=st.integers(1, 25),
    cuts=st.lists(st.integers(0, 59), max_size=8),
)
def test_batches_give_the_same_history_as_single_clicks(items: list[int], length: int, cuts: list[int]) -> None:
    clicks = list(enumerate(items))
    edges = sorted({0, len(clicks), *(c for c in cuts if c < len(clicks))})
    history: History | None = None
    for start, end in itertools.pairwise(edges):
        history, applied = apply_clicks(history, 3, clicks[start:end], length)
        assert applied == end - start
    assert history is not None
    assert history.items.tolist() == items[-length:]
    assert (history.partition, history.offset) == (3, len(items) - 1)


@given(
    items=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    restarts=st.lists(st.integers(0, 39), max_size=6),
)
def test_redelivery_from_any_offset_changes_nothing(items: list[int], restarts: list[int]) -> None:
    """After a crash, Kafka delivers messages again from an earlier offset."""
    clicks = list(enumerate(items))
    history, _ = apply_clicks(None, 0, clicks, 20)
    for start in restarts:
        redelivered = clicks[start:] or clicks
        history, applied = apply_clicks(history, 0, redelivered, 20)
        assert applied == 0
    assert history.items.tolist() == items[-20:]


def test_a_click_delivered_twice_in_one_batch_counts_once() -> None:
    history, applied = apply_clicks(None, 0, [(5, 11), (6, 12), (6, 12), (5, 11)], 20)
    assert (applied, history.offset, history.items.tolist()) == (2, 6, [11, 12])


def test_the_newer_of_two_records_has_the_higher_fence() -> None:
    old, new = (History(0, offset, np.array([offset])).to_bytes() for offset in (3, 7))
    elsewhere = History(1, 0, np.array([9])).to_bytes()
    assert newer_record(old, new) == newer_record(new, old) == new
    assert newer_record(new, elsewhere) == elsewhere, "offsets of two partitions cannot be compared: the second"


def test_only_records_of_the_partition_have_a_fence() -> None:
    items = np.array([5])
    assert fence_offset(History(3, 7, items).to_bytes(), 3) == 7
    assert fence_offset(History(4, 7, items).to_bytes(), 3) is None, "no worker writes it to this partition"
    assert fence_offset(History(-1, -1, items).to_bytes(), 3) == -1, "a history without clicks of this topic"
    assert fence_offset(b"hello", 3) is None


@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes_are_a_record_of_the_partition_or_not(record: bytes, partition: int) -> None:
    fence = fence_offset(record, partition)
    if fence is not None:
        assert History.from_bytes(record).offset == fence


def test_keys_of_users_are_text() -> None:
    assert is_user_key("käthe".encode())
    assert not any(map(is_user_key, (None, b"", b"\xff", b"\xffoffset", "käthe".encode()[:2])))


def test_the_fence_does_not_stop_clicks_of_another_partition() -> None:
    history, _ = apply_clicks(None, 0, [(900, 5)], 20)
    moved, applied = apply_clicks(history, 1, [(3, 6)], 20)
    assert applied == 1
    assert (moved.partition, moved.offset, moved.items.tolist()) == (1, 3, [5, 6])


@pytest.mark.parametrize("record", [b"", b"\x01", b"\x02" + bytes(12), b"\x01" + bytes(13)])
def test_corrupt_records_are_refused(record: bytes) -> None:
    with pytest.raises(CorruptHistoryError, match="history record"):
        History.from_bytes(record)


def test_the_documented_record() -> None:
    page = (Path(__file__).parents[3] / "streams" / "messages" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"`(01 [0-9a-f ]+)` is the history 881, 17978", page)
    assert History.from_bytes(bytes.fromhex(example)) == History(3, 991, np.array([881, 17978]))
