"""Reading click files and putting clicks in order."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.files import DataError
from model.data.malformed import MalformedLines
from producers.click_log import ClickLog, in_time_order, read_click_log
from streams.messages.clicks import user_key

DATA = Path(os.environ.get("MINDSTREAM_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real data: no folder {DATA}; name it in MINDSTREAM_DATA")

#: (user, item, order), with few users and orders, so that users repeat and orders are equal.
rows = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 99), st.integers(0, 9)), max_size=60)


def write(folder: Path, name: str, lines: Iterable[str]) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def per_user(log: ClickLog) -> dict[int | str, list[int]]:
    items = defaultdict(list)
    for user, item in zip(log.user.tolist(), log.item.tolist(), strict=True):
        items[log.user_ids[user]].append(item)
    return dict(items)


def expected(clicks: Iterable[tuple[int, int, int]]) -> dict[int, list[int]]:
    """Return each user's items by order; equal orders keep the order of the file."""
    items = defaultdict(list)
    for user, item, _ in sorted(clicks, key=lambda click: click[2]):
        items[user].append(item)
    return dict(items)


@given(rows, st.integers(0, 3))
def test_every_users_order_is_kept(tmp_path_factory: pytest.TempPathFactory, clicks: list, seed: int) -> None:  # type: ignore[type-arg]
    path = write(tmp_path_factory.mktemp("clicks"), "train.csv", [f"{u},{i},{o}" for u, i, o in clicks])
    log = in_time_order(read_click_log([path]), seed)
    assert len(log) == len(clicks)
    assert per_user(log) == expected(clicks)


@given(rows)
def test_time_stamps_are_followed_across_users(tmp_path_factory: pytest.TempPathFactory, clicks: list) -> None:  # type: ignore[type-arg]
    lines = [f"{u},{i},{1_700_000_000 + o}" for u, i, o in clicks]
    log = in_time_order(read_click_log([write(tmp_path_factory.mktemp("clicks"), "timed.csv", lines)]))
    assert log.timed == bool(clicks)
    assert log.item.tolist() == [item for _, item, _ in sorted(clicks, key=lambda click: click[2])]


def test_ranked_users_are_interleaved_over_the_whole_run(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", [f"{u},{i},{i}" for u in range(50) for i in range(1, 41)])
    log = in_time_order(read_click_log([path]), seed=1)
    for tenth in np.array_split(log.user, 10):
        assert set(tenth.tolist()) == set(range(50))
    again, other = in_time_order(read_click_log([path]), seed=1), in_time_order(read_click_log([path]), seed=2)
    assert again.user.tolist() == log.user.tolist() != other.user.tolist()


def test_a_users_later_file_comes_later(tmp_path: Path) -> None:
    first = write(tmp_path, "a.csv", ["7,1,5", "7,2,6", "8,9,0"])
    second = write(tmp_path, "b", ["user_id:7 target_item:0 hist_item:3 eval_item:4"])
    assert per_user(in_time_order(read_click_log([first, second]))) == {7: [1, 2, 3, 4], 8: [9]}


def test_in_the_valid_format_the_history_comes_before_the_targets(tmp_path: Path) -> None:
    line = "user_id:ann target_item:5 hist_item:3 hist_item:1 eval_item:2 eval_item:9"
    assert per_user(in_time_order(read_click_log([write(tmp_path, "c", [line])]))) == {"ann": [3, 1, 2, 9]}


@pytest.mark.parametrize(
    ("text", "user_id"),
    [("42", 42), ("-7", -7), ("007", "007"), ("1_0", "1_0"), ("ann", "ann"), (str(2**63), str(2**63)), ("+1", "+1")],
)
def test_user_ids_keep_their_text(tmp_path: Path, text: str, user_id: int | str) -> None:
    log = read_click_log([write(tmp_path, "c", [f"{text},2,0"])])
    assert log.user_ids == [user_id]
    assert user_key(log.user_ids[0]) == text.encode()


@pytest.mark.parametrize(("line", "fault"), [("1,0,3", "item id 0"), ("user_id:3 item:4", "expected uid")])
def test_malformed_lines_name_file_line_and_fault(tmp_path: Path, line: str, fault: str) -> None:
    path = write(tmp_path, "bad.csv", ["1,2,0", line, "1,3,1"])
    with pytest.raises(DataError, match=fault) as raised:
        read_click_log([path], MalformedLines("fail", "--{} {}"))
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert str(raised.value).endswith("(fix the line, or leave such lines out: --malformed skip)")
    malformed = MalformedLines("skip")
    log = read_click_log([path], malformed)
    assert [(one.path, one.first, one.malformed, one.lines) for one in malformed.skipped] == [(str(path), 2, 1, 3)]
    assert log.item.tolist() == [2, 3]


def test_a_line_that_is_not_utf8_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(b"1,2,0\n\xff\xfe,3,1\n1,4,2\n")
    malformed = MalformedLines("skip")
    assert read_click_log([path], malformed).item.tolist() == [2, 4]
    assert malformed.skipped[0].first == 2


def test_a_file_that_cannot_be_read_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv: cannot be read"):
        read_click_log([tmp_path / "missing.csv"])


def test_contradicting_orders_are_refused(tmp_path: Path) -> None:
    ranks = write(tmp_path, "ranks", ["1,2,0"])
    times = write(tmp_path, "times", ["1,2,1700000000"])
    milliseconds = write(tmp_path, "ms", ["1,2,1700000000000"])
    with pytest.raises(DataError, match="read them separately, or --order rank"):
        read_click_log([ranks, times], MalformedLines(advice="--{} {}"))
    with pytest.raises(DataError, match=r"line 1: 0 is no time .* but a rank"):
        read_click_log([ranks], order="time")
    with pytest.raises(DataError, match="milliseconds"):
        read_click_log([milliseconds])
    assert not read_click_log([ranks, times], order="rank").timed
    assert len(read_click_log([])) == 0


@needs_data
def test_amazonbook_files_are_read() -> None:
    log = read_click_log([DATA / "amazonbook-sample" / "train" / "demo.txt"])
    assert (len(log), len(log.user_ids), log.timed) == (20_000, 1_467, False)
    valid = read_click_log([DATA / "amazonbook-sample" / "valid" / "part-0"])
    assert len(valid.user_ids) == 499
