"""The rule for orders, headers, and other formats: read as they are meant, or refused, never something else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.files import DataError
from model.data.limits import MAX_SECONDS, MIN_SECONDS
from model.data.malformed import MalformedLines
from model.data.reader import Order, read_columns

NOW = 1_404_172_800


def write(folder: Path, orders: Iterable[object], name: str = "c.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{1 + n % 3},{1 + n},{order}\n" for n, order in enumerate(orders)))
    return path


def skipping(path: Path, order: Order = "auto") -> tuple[list[int], bool, MalformedLines]:
    """Return the items that are read if malformed lines are skipped."""
    malformed = MalformedLines("skip", "--{} {}")
    columns = read_columns([path], malformed, order)
    return columns.item.tolist(), columns.timed, malformed


@pytest.mark.parametrize("wrong", [NOW * 1000, -1, 0, 5, NOW * 1000 + 0.5, 5e10, 1e30])
@pytest.mark.parametrize("blank", ["", "\n \n"])
def test_one_wrong_time_is_one_malformed_line_and_the_others_stay_times(
    tmp_path: Path, wrong: float, blank: str
) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"1,1,{NOW}\n{blank}1,2,{wrong}\n1,3,{NOW + 1}\n1,4,{NOW + 2}.5\n")
    line = 2 + blank.count("\n")
    items, timed, malformed = skipping(path)
    assert (items, timed) == ([1, 3, 4], True)
    assert (malformed.total, malformed.skipped[0].first, malformed.skipped[0].lines) == (1, line, 4)
    with pytest.raises(DataError, match=f"line {line}: .*(divide by 1000|negative|rank|2286).*--order rank"):
        read_columns([path], MalformedLines("fail", "--{} {}"))
    assert skipping(path, "rank")[:2] == ([1, 2, 3, 4], False)


@given(st.lists(st.integers(0, MIN_SECONDS - 1) | st.floats(-1e9, MIN_SECONDS - 1), min_size=1))
def test_a_file_of_ranks_stays_one(tmp_path_factory: pytest.TempPathFactory, orders: list[float]) -> None:
    path = write(tmp_path_factory.mktemp("ranks"), orders)
    items, timed, malformed = skipping(path)
    assert (len(items), timed, malformed.total) == (len(orders), False, 0)


@given(st.lists(st.integers(-10, 2 * MAX_SECONDS), min_size=1))
def test_a_file_with_a_time_has_only_times(tmp_path_factory: pytest.TempPathFactory, orders: list[int]) -> None:
    path = write(tmp_path_factory.mktemp("times"), [*orders, NOW])
    items, timed, malformed = skipping(path)
    times = [n for n, order in enumerate([*orders, NOW], 1) if MIN_SECONDS <= order < MAX_SECONDS]
    assert (items, timed, malformed.total) == (times, True, len(orders) + 1 - len(times))


@pytest.mark.parametrize("handling", ["fail", "skip"])
@pytest.mark.parametrize(("factor", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds")])
def test_a_file_in_another_unit_says_by_what_to_divide(tmp_path: Path, handling: str, factor: int, unit: str) -> None:
    path = write(tmp_path, [NOW * factor, (NOW + 9) * factor])
    with pytest.raises(DataError, match=f"c.csv: its times are in {unit}.*divide the third column by {factor}, or"):
        read_columns([path], MalformedLines(handling, "--{} {}"))  # type: ignore[arg-type]


def test_users_whose_lines_are_all_malformed_are_no_users(tmp_path: Path) -> None:
    malformed = MalformedLines("skip")
    columns = read_columns([write(tmp_path, [5, NOW, NOW + 1, 6])], malformed)
    assert (columns.users, columns.user.tolist(), malformed.total) == (["2", "3"], [0, 1], 2)


def test_every_line_malformed_is_that_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("1\t2\t3\n1\t3\t4\n")
    with pytest.raises(DataError, match=r"c\.csv: no line is a click: .*2 of 2 lines skipped; the first is line 1"):
        skipping(path)


@pytest.mark.parametrize(
    "header",
    [
        "user_id,item_id,timestamp",
        '"user_id","item_id","timestamp"',
        ",user_id,item_id,timestamp",
        "timestamp,visitorid,event,itemid,transactionid",
        "SessionId\tItemId\tTime",
        "user;item;rating",
        "# user, item, time",
        "\ufeffuser_id,item_id,timestamp",
    ],
)
def test_a_header_is_named_as_one_and_is_one_line_when_skipped(tmp_path: Path, header: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{header}\n1,2,3\n1,3,4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"c\.csv, line 1: the first line is a header.*remove it"):
        read_columns([path], MalformedLines())
    items, _, malformed = skipping(path)
    assert (items, malformed.total) == ([2, 3], 1)


@pytest.mark.parametrize("line", ["1,2", "1,0,3", "ann", "1,2,later", "7,AB-1,5"])
def test_a_malformed_first_line_is_no_header(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{line}\n1,3,4\n")
    with pytest.raises(DataError, match=r"line 1: (?!the first line is a header)"):
        read_columns([path], MalformedLines())


def test_item_ids_with_leading_zeros_are_never_merged(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("A1,0140000001,1\nA1,140000001,2\nA2,140000001,0\nA2,+140000001,2\n")
    items, _, malformed = skipping(path)
    assert (items, [malformed.skipped[0].first, malformed.total]) == ([140000001] * 2, [1, 2])


def test_large_ranks_keep_their_order(tmp_path: Path) -> None:
    """Read them as integers: as floats, they would be equal."""
    columns = read_columns([write(tmp_path, [2**53 + 1, 2**53])], MalformedLines(), "rank")
    assert columns.order.tolist() == [2**53 + 1, 2**53]


def test_both_formats_are_read_and_a_later_file_comes_later(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.write_text("user_id:1 hist_item:70 eval_item:71\nuser_id:5\nuser_id:1 hist_item:72\n")
    columns = read_columns([write(tmp_path, [8, 9]), held], MalformedLines())
    assert columns.users == ["1", "2"]
    assert columns.item.tolist() == [1, 2, 70, 71, 72]
    assert sorted(columns.order.tolist()) == columns.order.tolist()
