"""Opening click files and parsing their lines."""

from __future__ import annotations

import gzip
import io
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import files as clickfile
from model.data.files import (
    INT64,
    MAX_USER_BYTES,
    DataError,
    blocks,
    is_user_line,
    lines,
    parse_click,
    parse_int64,
    parse_user,
)
from streams.messages.fields import MAX_USER_ID_BYTES

TEXT = "\ufeff1,2,0\r\n\r\n  1,3,1\r\n".encode()
NUMBERED = [(1, "1,2,0"), (3, "1,3,1")]


def test_every_user_in_training_data_can_be_served() -> None:
    assert MAX_USER_BYTES == MAX_USER_ID_BYTES


@pytest.mark.parametrize(("name", "pack"), [("c.gz", gzip.compress), ("c.xz", lzma.compress), ("c", bytes)])
def test_lines_are_numbered_and_blank_lines_skipped(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / name).write_bytes(pack(TEXT))
    assert list(lines(tmp_path / name)) == NUMBERED
    assert list(lines(str(tmp_path / name), "replace")) == NUMBERED


@pytest.mark.parametrize(("name", "pack"), [("c.gz", gzip.compress), ("c.xz", lzma.compress), ("c", bytes)])
@pytest.mark.parametrize("size", range(1, 20))
def test_blocks_are_whole_lines_with_the_number_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack: Callable[[bytes], bytes], size: int
) -> None:
    (tmp_path / name).write_bytes(pack(TEXT))
    monkeypatch.setattr(clickfile, "BLOCK_CHARACTERS", size)
    found = list(blocks(tmp_path / name))
    assert "".join(text for _, text in found) == "1,2,0\n\n  1,3,1\n"
    for number, text in found:
        assert text.endswith("\n")
        assert number == 1 + "".join(before for first, before in found if first < number).count("\n")


def test_a_dash_is_standard_input_and_a_path_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="-: cannot be read"):
        list(lines(Path("-")))
    assert list(lines("-")) == NUMBERED


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing", None),
        ("torn.gz", gzip.compress(b"1,2,0\n" * 999, mtime=0)[:-20]),
        ("torn.xz", lzma.compress(b"1,2,0\n" * 999)[:-20]),
        ("corrupt.gz", gzip.compress(b"1,2,0\n", mtime=0)[:10] + b"\xff" * 20),
        ("binary", b"1,2,0\n\xff\xfe\x00"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: cannot be read .*; check the path"):
        list(lines(tmp_path / name))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bytes])
def test_the_content_tells_how_a_file_is_packed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    for name in ("c.csv", "c.GZ", "c.gz", "c.xz"):
        (tmp_path / name).write_bytes(pack(TEXT))
        assert list(lines(tmp_path / name)) == NUMBERED


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"PK\x03\x04", "zip"), (b"BZh9", "bzip2"), (b"PAR1", "Parquet"), (b"(\xb5/\xfd", "Zst")],
)
def test_archives_and_binary_formats_are_named(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "c").write_bytes(head + b"1,2,0\n")
    with pytest.raises(DataError, match=f"c: is .*{kind}.* unpack or convert it"):
        list(lines(tmp_path / "c", "replace"))


def test_bytes_that_are_not_utf8_can_make_only_their_line_malformed(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"1,2,0\n\xff\xfe,3,1\n1,4,2\n")
    found = [line for _, line in lines(tmp_path / "c", "replace")]
    assert (found[0], found[2]) == ("1,2,0", "1,4,2")
    with pytest.raises(ValueError, match="not UTF-8"):
        parse_click(found[1])


def test_the_train_format_is_parsed() -> None:
    assert parse_click("007, -5 ,1.5") == ("007", -5, 1.5)
    user, item, order = parse_click(f"ann,{2**63 - 2},{2**63 - 1}")
    assert (user, item, order) == ("ann", 2**63 - 2, 2**63 - 1)
    assert isinstance(order, int)  # a float would round it
    assert not is_user_line("ann,1,2")


def test_the_valid_format_is_parsed() -> None:
    line = "user_id:7 target_item:0 hist_item:3 eval_item:5 hist_item:4"
    assert is_user_line(line)
    assert parse_user(line) == ("7", [3, 4], [5])
    assert parse_user("user_id:ann") == ("ann", [], [])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1,2", "expected uid,item_id,order"),
        ("1,2,3,4", "expected uid,item_id,order"),
        ("uid,item_id,order", "found 'item_id'"),
        ("1,0,3", "the item id 0 is reserved for padding: number items from 1"),
        (f"1,{-(2**63)},3", "pandas writes for a missing value"),
        (f"1,{2**63 - 1},3", "outside the range"),
        ("1,007,3", "no leading zeros, found '007', which is not 7"),
        ("1,+7,3", "no \\+ and"),
        ("1,7.0,3", "64-bit integer, found '7.0' .*pandas writes 7.0 for 7"),
        ("7.0,7,3", "pandas writes 7.0 for 7 .*found the user id '7.0'"),
        ('"7",7,3', "without quotes"),
        ("1\t2\t3", "no comma in '1"),
        ("1,2.5,3", "64-bit integer"),
        (f"1,{2**63},3", "64-bit integer"),
        ("1,1_0,3", "64-bit integer"),
        ("1,2,x", "the order is"),
        ("1,2,nan", "the order is"),
        ("1,2,1_0.5", "the order is"),
        (",2,3", "a user id has"),
        ("u" * 257 + ",2,3", "a user id has .* found 'u{59}…'"),
        ("user_id: hist_item:3", "a user id has"),
        ("user_id:3 hist_item:x", "64-bit integer"),
        ("user_id:3 hist_item", "64-bit integer"),
        ("user_id:3 item:4", "expected user_id: .* found 'item:4'"),
        ("user_id:3 user_id:4", "expected user_id: .* found 'user_id:4'"),
        ("1,\ufffd,3", "not UTF-8"),
    ],
)
def test_errors_of_malformed_lines_name_the_fault(line: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        (parse_user if is_user_line(line) else parse_click)(line)


def test_a_line_of_the_valid_format_needs_a_user() -> None:
    with pytest.raises(ValueError, match="expected a user_id:"):
        parse_user("hist_item:3 eval_item:4")


@given(st.text("0123456789+-_ ", max_size=45) | st.integers(-(2**65), 2**65).map(str))
def test_parse_int64_returns_the_number_or_none(text: str) -> None:
    try:
        number = int(text) if "_" not in text and len(text.strip()) <= 40 else None
    except ValueError:
        number = None
    assert parse_int64(text) == (number if number is not None and number in INT64 else None)
