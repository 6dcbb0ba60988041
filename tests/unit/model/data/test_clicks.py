"""Click files read into arrays, and users split for evaluation."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import files as clickfile
from model.data.clicks import Clicks, hold_out, is_valid_format, read_clicks, read_holdout, split_users
from model.data.files import DataError, parse_click, parse_int64
from model.data.limits import MAX_ITEM_ID, MIN_ITEM_ID
from model.data.malformed import MalformedLines

SAMPLE = Path(os.environ.get("MINDSTREAM_DATA", "../shared/data")) / "amazonbook-sample"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason=f"no AmazonBook sample in {SAMPLE}; set MINDSTREAM_DATA to the folder that holds it"
)

nonzero = st.integers(MIN_ITEM_ID, MAX_ITEM_ID).filter(bool)
order = st.integers(-(2**53), 2**53) | st.floats(-1e12, 1e12, allow_nan=False)
whole_users = st.integers(-(2**63), 2**63 - 1)
text_users = st.text("abc0123456789_-+", min_size=1, max_size=8)
clicks_lines = st.builds("{},{},{!r}".format, whole_users, nonzero, order)
text_lines = st.builds("{},{},{!r}".format, whole_users | text_users, nonzero, order)
whole_lines = st.builds("{},{},{}".format, st.integers(-3, 3), st.integers(1, 9), st.integers(0, 9))
odd_lines = st.text("0123456789,,,+-._enaé٣ \t\r\x00\x0c\x85\u2028\ufffd", max_size=20)


def write(folder: Path, text: str, name: str = "clicks.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def blocks_of(characters: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clickfile, "BLOCK_CHARACTERS", characters)
        yield


def as_lists(clicks: Clicks) -> dict[object, list[int]]:
    return {user: clicks.items_of(u).tolist() for u, user in enumerate(clicks.users.tolist())}


def clicks_of(lengths: list[int]) -> Clicks:
    """Return users 0, 1, … with that many clicks each, on items 1, 2, … in order."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return Clicks(np.arange(len(lengths)), offsets, np.arange(1, offsets[-1] + 1))


def test_clicks_are_grouped_by_user_and_sorted_by_order_and_equal_orders_keep_file_order(tmp_path: Path) -> None:
    path = write(tmp_path, "2,30,5\n1,11,1\n2,20,4\n1,12,1\n1,10,0\n2,31,5\n")
    clicks = read_clicks([path])
    assert as_lists(clicks) == {1: [10, 11, 12], 2: [20, 30, 31]}
    assert clicks.items.dtype == clicks.offsets.dtype == np.int64
    assert len(clicks) == 2
    assert clicks.lengths.tolist() == [3, 3]


def test_users_of_several_files_are_joined_and_later_ranks_are_later_clicks(tmp_path: Path) -> None:
    first = write(tmp_path, "1,10,1\n2,20,1\n", "a")
    second = write(tmp_path, "1,11,0\n3,30,1\n", "b")
    assert as_lists(read_clicks([first, second])) == {1: [10, 11], 2: [20], 3: [30]}


def test_a_user_id_that_is_not_a_number_makes_all_of_them_text(tmp_path: Path) -> None:
    first = write(tmp_path, "1,10,1\n", "a")
    second = write(tmp_path, "ann,20,1\n1,11,2.5\n", "b")
    assert as_lists(read_clicks([first, second])) == {"1": [10, 11], "ann": [20]}


@pytest.mark.parametrize(
    "line",
    [
        "uid,item_id,order",
        "1,2",
        "1,2,3,4",
        "1,0,3",
        "1,x,3",
        "1,1.5,3",
        "1,9223372036854775808,3",
        "1,9223372036854775807,3",
        "1,-9223372036854775808,3",
        "1,07,3",
        "1,+7,3",
        "1, 07 ,3",
        "1,-07,3",
        "1,7.0,3",
        "7.0,1,3",
        '"ann",1,3',
        "1,1_0,3",
        "1,2,nan",
        "1,2,inf",
        "1,2,later",
        ",2,3",
        "1,,3",
    ],
)
@pytest.mark.parametrize("around", ["1,10,1", "ann,10,1.5"])
def test_a_malformed_line_is_an_error_or_counted(tmp_path: Path, line: str, around: str) -> None:
    path = write(tmp_path, f"{around}\n\n{line}\n{around}\n")
    with pytest.raises(DataError, match=r"clicks\.txt, line 3: .*(found |the item id ).*skip"):
        read_clicks([path], MalformedLines("fail", "--{}={}"))
    malformed = MalformedLines("skip")
    clicks = read_clicks([path], malformed)
    assert (malformed.total, malformed.skipped[0].lines, malformed.skipped[0].first) == (1, 3, 3)
    assert clicks.items.tolist() == [10, 10]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.txt: cannot be read"):
        read_clicks([tmp_path / "missing.txt"])
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(b"1,2,0\n" * 999)[:-20])
    with pytest.raises(DataError, match=r"torn\.gz: cannot be read"):
        read_clicks([torn])
    with pytest.raises(DataError, match="no click files"):
        read_clicks([])


def test_an_empty_file_has_no_users(tmp_path: Path) -> None:
    clicks = read_clicks([write(tmp_path, "")])
    assert len(clicks) == len(clicks.items) == 0
    assert clicks.offsets.tolist() == [0]


def read_simply(text: str) -> tuple[dict[object, list[int]], list[int]]:
    """Read line by line, with lists and a dict: user → items in their order, and the numbers of the malformed lines."""
    rows, malformed = [], []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        try:
            rows += [parse_click(line.strip())] if line.strip() else []
        except ValueError:
            malformed.append(number)
    whole_users = all(str(parse_int64(user)) == user for user, _, _ in rows)
    whole_order = all(isinstance(order, int) for _, _, order in rows)
    found: dict[object, list[int]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2] if whole_order else float(row[2])):
        found.setdefault(int(user) if whole_users else user, []).append(item)
    return found, malformed


@given(
    st.lists(clicks_lines)
    | st.lists(text_lines)
    | st.lists(whole_lines)
    | st.lists(whole_lines | text_lines | odd_lines),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 60),
)
def test_the_reader_equals_a_simple_one(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], newline: str, mark: bool, ended: bool, block: int
) -> None:
    text = newline.join([*lines, ""] if ended else lines)
    path = tmp_path_factory.mktemp("clicks") / "clicks.txt"
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    expected, malformed = read_simply(text)
    with blocks_of(block):
        skipped = MalformedLines("skip")
        if malformed and not expected:
            with pytest.raises(DataError, match="no line is a click"):
                read_clicks([path], skipped, "rank")
        else:
            clicks = read_clicks([path], skipped, "rank")
            assert as_lists(clicks) == expected
            assert clicks.users.tolist() == sorted(expected)  # type: ignore[type-var]  # all int or all str
        assert skipped.total == len(malformed)
        if malformed:
            assert skipped.skipped[0].first == malformed[0]
            with pytest.raises(DataError, match=f"line {malformed[0]}: "):
                read_clicks([path], order="rank")


@pytest.mark.parametrize(("name", "pack"), [("c.gz", gzip.compress), ("c.xz", lzma.compress), ("c", bytes)])
def test_a_malformed_line_of_a_later_block_has_its_number(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    lines = [f"{number},7,{number}" for number in range(1, 50_001)]
    lines[40_000] = "40001;7;40001"
    (tmp_path / name).write_bytes(pack("\r\n".join(lines).encode()))
    assert sum(map(len, lines)) > 2 * clickfile.BLOCK_CHARACTERS
    with pytest.raises(DataError, match=f"{name}, line 40001: expected uid"):
        read_clicks([tmp_path / name])
    malformed = MalformedLines("skip")
    clicks = read_clicks([tmp_path / name], malformed)
    assert (len(clicks), malformed.total) == (49_999, 1)
    assert clicks.users.dtype == np.int64


def test_bytes_that_are_not_utf8_make_a_line_malformed(tmp_path: Path) -> None:
    path = tmp_path / "clicks.txt"
    path.write_bytes(b"1,10,0\n\xff\xfe,11,1\n1,12,2\n")
    with pytest.raises(DataError, match=r"clicks\.txt, line 2: not UTF-8"):
        read_clicks([path])
    assert as_lists(read_clicks([path], MalformedLines("skip"))) == {1: [10, 12]}
    path.write_bytes(b"user_id:1 eval_item:5\nuser_id:\xff eval_item:5\n")
    assert is_valid_format(path)
    with pytest.raises(DataError, match=r"clicks\.txt, line 2: not UTF-8"):
        read_holdout([path])


def test_fractions_in_a_later_block_are_sorted_among_integers_of_earlier_blocks(tmp_path: Path) -> None:
    path = write(tmp_path, "1,10,2\n1,11,1\n1,12,1.5\n1,13,0\n")
    with blocks_of(1):
        assert as_lists(read_clicks([path])) == {1: [13, 11, 12, 10]}


def test_user_ids_differ_if_their_texts_differ_as_in_click_messages(tmp_path: Path) -> None:
    same = write(tmp_path, "7,10,0\n-7,11,0\n 7 ,12,1\n", "same")
    assert as_lists(read_clicks([same])) == {-7: [11], 7: [10, 12]}
    for other in ("07", "+7", "-0", "7_0", "٧", str(2**63)):
        path = write(tmp_path, f"7,20,1\n{other},21,1\n", "other")
        for block in (1, 1000):
            with blocks_of(block):
                assert as_lists(read_clicks([same, path])) == {"-7": [11], "7": [10, 12, 20], other: [21]}
    held = write(tmp_path, "user_id:7 eval_item:1\nuser_id:07 eval_item:1\n", "held")
    assert read_holdout([held]).targets.users.tolist() == ["7", "07"]


def test_the_valid_format_is_read_with_and_without_target_item(tmp_path: Path) -> None:
    path = write(
        tmp_path, "user_id:7 target_item:0 hist_item:3 hist_item:4 eval_item:5\nuser_id:8 eval_item:6 eval_item:7\n"
    )
    history, targets = read_holdout([path])
    assert as_lists(history) == {7: [3, 4], 8: []}
    assert as_lists(targets) == {7: [5], 8: [6, 7]}
    assert is_valid_format(path)


@pytest.mark.parametrize(
    "line",
    ["1,2,3", "user_id:7 hist_item:3", "hist_item:3 eval_item:4", "user_id:7 eval_item:0", "user_id: eval_item:1"],
)
def test_a_malformed_line_of_the_valid_format_is_an_error_or_counted(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"user_id:7 hist_item:3 eval_item:5\n{line}\n")
    with pytest.raises(DataError, match="line 2"):
        read_holdout([path])
    malformed = MalformedLines("skip")
    held = read_holdout([path], malformed)
    assert len(held.history) == malformed.total == 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_hold_out_cuts_each_user_after_four_fifths(lengths: list[int]) -> None:
    clicks = clicks_of(lengths)
    history, targets = hold_out(clicks)
    assert history.users.tolist() == targets.users.tolist() == [u for u, n in enumerate(lengths) if n > 1]
    for u, user in enumerate(history.users):
        whole = clicks.items_of(user).tolist()
        cut = int(len(whole) * 0.8)
        assert history.items_of(u).tolist() == whole[:cut]
        assert targets.items_of(u).tolist() == whole[cut:]
        assert 0 < cut < len(whole)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.floats(0, 0.99), st.integers(0, 9))
def test_split_users_keeps_every_user_whole_and_depends_only_on_the_seed(
    lengths: list[int], share: float, seed: int
) -> None:
    clicks = clicks_of(lengths)
    parts = split_users(clicks, share, np.random.default_rng(seed))
    assert as_lists(parts[0]) | as_lists(parts[1]) == as_lists(clicks)
    assert len(parts[0]) + len(parts[1]) == len(clicks)
    assert len(parts[1]) == round(share * len(clicks))
    again = split_users(clicks, share, np.random.default_rng(seed))
    assert again[0].users.tolist() == parts[0].users.tolist()


@needs_sample
def test_genuine_amazonbook_clicks_are_read() -> None:
    clicks = read_clicks([SAMPLE / "train" / "demo.txt"])
    assert (len(clicks), len(clicks.items)) == (1467, 20_000)
    assert clicks.items.max() == 367_891
    assert clicks.items_of(0)[:4].tolist() == [17978, 901, 97224, 774]
    assert not is_valid_format(SAMPLE / "train" / "demo.txt")


@needs_sample
def test_genuine_amazonbook_users_are_read() -> None:
    history, targets = read_holdout([SAMPLE / "valid" / "part-0"])
    assert len(history) == len(targets) == 499
    assert history.users[0] == 482936
    assert history.items_of(0)[:2].tolist() == [5175, 14966]
    assert targets.items_of(0).tolist() == [57177, 22266, 61335, 126551]
