"""Click files in the AmazonBook formats of ComiRec and PaddleRec. Only this module opens, decodes and parses them.

Train format: `uid,item_id,order` on each line, no header; `order` is a time stamp or a rank among the user's clicks.
Valid format: one user on each line, `user_id:7 target_item:0 hist_item:3 … eval_item:9 …`, history first, then the
targets; `target_item` is not a click and may be missing. Text is UTF-8, with or without a byte order mark; gzip and xz
files are decompressed. Item ids are written as Python writes the number, within `model.data.limits`; user ids are
text of 1 to 256 bytes, so 07 and 7 are two users, as in click messages.

Parsers raise only ValueError, whatever the line; the message says what was expected and what was found.
"""

from __future__ import annotations

import gzip
import lzma
import math
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal, cast

from configs.errors import InputError
from model.data.limits import fault_of_item_id

PathName = str | PathLike[str]
#: Bytes that are not UTF-8 make the whole file unusable ("strict"), or only their line ("replace").
Decoding = Literal["strict", "replace"]
#: Replaces bytes that are not UTF-8, with "replace".
UNDECODED = "\ufffd"

#: First bytes of files that are often given by mistake.
_NOT_TEXT = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "packed with bzip2",
    b"\x28\xb5\x2f\xfd": "packed with Zstandard",
    b"PAR1": "a Parquet file",
}
INT64 = range(-(2**63), 2**63)
#: Bytes of a user id in UTF-8: the limit of click messages, so that every user in the training data can be served.
MAX_USER_BYTES = 256
#: Maximum number of characters of a line or field in an error message: enough to find it.
_MAX_SHOWN = 60
#: Characters read at once, about ten thousand lines, so that the overhead of each block is negligible. A block with a
#: malformed line is read line by line, which takes a few hundredths of a second; larger blocks would take longer.
BLOCK_CHARACTERS = 2**18
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
#: A whole number that passed through a column of floats.
_FLOATED = re.compile(r"[+-]?[0-9]+\.0+", re.ASCII)
_FLOATED_FAULT = "pandas writes 7.0 for 7 if a column has missing values: write whole numbers"
_SEPARATORS = re.compile(r"::|[,;|\t]")
#: A field of a header: a name, or, before an index of pandas, nothing.
_NAME = re.compile(r"(?:[^\W\d][\w .:-]*)?")


class DataError(InputError):
    """A click file that cannot be used. The message names the file, the line and what was expected."""


@contextmanager
def open_text(path: PathName, decoding: Decoding = "strict") -> Iterator[IO[str]]:
    """Open a file as text; the text `-` (but not a Path) is standard input.

    Raises:
        DataError: the file cannot be opened, or, within the `with` block, decompressed or decoded.
    """
    try:
        with _open(path, decoding) as file:
            yield file
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "check the path, and that the file is UTF-8 text, plain, .gz or .xz"
        raise DataError(f"{path}: cannot be read ({reason}); {remedy}") from None


def lines(path: PathName, decoding: Decoding = "strict") -> Iterator[tuple[int, str]]:
    """Yield stripped lines with their numbers, from 1; blank lines are skipped.

    Raises:
        DataError: as `open_text`.
    """
    with open_text(path, decoding) as file:
        for number, line in enumerate(file, 1):
            if stripped := line.strip():
                yield number, stripped


def blocks(path: PathName, decoding: Decoding = "strict") -> Iterator[tuple[int, str]]:
    """Yield blocks of whole lines with the number of their first line, from 1; only the last line may lack its \\n.

    Raises:
        DataError: as `open_text`.
    """
    number = 1
    with open_text(path, decoding) as file:
        while text := file.read(BLOCK_CHARACTERS):
            text += file.readline()
            yield number, text
            number += text.count("\n")


def is_user_line(line: str) -> bool:
    """Return whether the line is in the valid format; otherwise it should be in the train format."""
    return line.startswith("user_id:")


def parse_click(line: str) -> tuple[str, int, int | float]:
    """Parse a line in the train format into user id, item id and order: an int if it is an int64, else a finite float.

    Raises:
        ValueError: the line is malformed.
    """
    if UNDECODED in line:
        raise ValueError(f"not UTF-8, found {_show(line)}")
    fields = line.split(",")
    if len(fields) != 3:
        number = f"{len(fields)} fields" if len(fields) > 1 else "no comma"
        raise ValueError(f"expected uid,item_id,order, or user_id:… hist_item:…, found {number} in {_show(line)}")
    return user_id(fields[0]), _item(fields[1]), _order(fields[2])


def fault_of_header(line: str) -> str | None:
    """Return what to do about the first line of a file if it names columns; None if it does not."""
    names = [name.strip(" #\"'") for name in _SEPARATORS.split(line)]
    if len(names) < 2 or not any(names) or not all(map(_NAME.fullmatch, names)):
        return None
    remedy = "remove it (tail -n +2), and write the columns uid,item_id,order"
    return f"the first line is a header, {_show(line)}; {remedy}"


def parse_user(line: str) -> tuple[str, list[int], list[int]]:
    """Parse a line in the valid format into user id, history and targets; either list may be empty.

    Raises:
        ValueError: the line is malformed.
    """
    if UNDECODED in line:
        raise ValueError(f"not UTF-8, found {_show(line)}")
    user = ""
    items: dict[str, list[int]] = {"hist_item": [], "eval_item": []}
    for field in line.split():
        name, _, text = field.partition(":")
        if name in items:
            items[name].append(_item(text))
        elif name == "user_id" and not user:
            user = user_id(text)
        elif name != "target_item":
            raise ValueError(f"expected user_id: once, target_item:, hist_item: or eval_item:, found {_show(field)}")
    if not user:
        raise ValueError(f"expected a user_id:, found {_show(line)}")
    return user, items["hist_item"], items["eval_item"]


def user_id(text: str) -> str:
    """Return the user id in a field: its text without surrounding space.

    Raises:
        ValueError: the id is empty or too long, in quotes, or a whole number written as a float.
    """
    text = text.strip()
    if not 0 < len(text.encode()) <= MAX_USER_BYTES:
        raise ValueError(f"a user id has 1 to {MAX_USER_BYTES} bytes, found {_show(text)}")
    if text[0] == '"' == text[-1]:
        raise ValueError(f"fields are written without quotes, found {_show(text)}")
    if _FLOATED.fullmatch(text):
        raise ValueError(f"{_FLOATED_FAULT}; found the user id {_show(text)}")
    return text


def parse_int64(text: str) -> int | None:
    """Parse an integer in ASCII digits, with or without a sign; None if it is not one, or exceeds int64."""
    if len(text) < 19 and text.isdecimal() and text.isascii():  # the fast path, nearly always
        return int(text)
    text = text.strip()
    if len(text) > 40 or not _WHOLE.fullmatch(text) or int(text) not in INT64:
        return None
    return int(text)


@contextmanager
def _open(path: PathName, decoding: Decoding) -> Iterator[IO[str]]:
    """Open a file as its first bytes tell, whatever its name."""
    with BufferedReader(cast("Any", sys.stdin.buffer)) if path == "-" else Path(path).open("rb") as file:
        head = file.peek(6)[:6]
        for mark, kind in _NOT_TEXT.items():
            if head.startswith(mark):
                raise DataError(f"{path}: is {kind}, not text; unpack or convert it, or pack it as .gz or .xz")
        unpacked: Any = file
        if head.startswith(b"\x1f\x8b"):
            unpacked = gzip.GzipFile(fileobj=file)
        elif head.startswith(b"\xfd7zXZ"):
            unpacked = lzma.LZMAFile(file)  # noqa: SIM115 - closed with `text`
        with TextIOWrapper(unpacked, encoding="utf-8-sig", errors=decoding) as text:
            yield text


def _item(text: str) -> int:
    item, text = parse_int64(text), text.strip()
    if item is None:
        hint = f" ({_FLOATED_FAULT})" if _FLOATED.fullmatch(text) else ""
        raise ValueError(f"an item id is a signed 64-bit integer, found {_show(text)}{hint}")
    if (fault := fault_of_item_id(item)) is not None:
        raise ValueError(f"the item id {fault}")
    if str(item) != text:
        raise ValueError(f"an item id has no + and no leading zeros, found {_show(text)}, which is not {item}")
    return item


def _order(text: str) -> int | float:
    whole = parse_int64(text)
    if whole is not None:
        return whole
    try:
        order = float(text) if "_" not in text else math.nan
    except ValueError:
        order = math.nan
    if not math.isfinite(order):
        raise ValueError(f"the order is a number, a rank or a time stamp, found {_show(text)}")
    return order


def _show(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…")
