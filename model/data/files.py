"""Click files in the AmazonBook formats of ComiRec and PaddleRec. Only this module opens, decodes and parses them.

Train format: `uid,item_id,order` on each line, no header; `order` is a time stamp or a rank among the user's clicks.
Valid format: one user on each line, `user_id:7 target_item:0 hist_item:3 … eval_item:9 …`, history first, then the
targets; `target_item` is not a click and may be missing. Text is UTF-8, with or without a byte order mark; files named
.gz or .xz are decompressed. Item ids are any int64 except 0, which is padding; user ids are text of 1 to 256 bytes, so
07 and 7 are two users, as in click messages.

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
from io import TextIOWrapper
from os import PathLike
from pathlib import Path
from typing import IO, Literal

from configs.errors import InputError

PathName = str | PathLike[str]
#: Bytes that are not UTF-8 make the whole file unusable ("strict"), or only their line ("replace").
Decoding = Literal["strict", "replace"]
#: Replaces bytes that are not UTF-8, with "replace".
UNDECODED = "\ufffd"

INT64 = range(-(2**63), 2**63)
#: Bytes of a user id in UTF-8: the limit of click messages, so that every user in the training data can be served.
MAX_USER_BYTES = 256
#: Maximum number of characters of a line or field in an error message: enough to find it.
_MAX_SHOWN = 60
#: Characters read at once, about ten thousand lines, so that the overhead of each block is negligible. A block with a
#: malformed line is read line by line, which takes a few hundredths of a second; larger blocks would take longer.
BLOCK_CHARACTERS = 2**18
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)


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
        remedy = "check the path, and that the file is UTF-8 text, .gz or .xz"
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
        raise ValueError(f"expected uid,item_id,order and no header, or user_id:… hist_item:…, found {_show(line)}")
    return user_id(fields[0]), _item(fields[1]), _order(fields[2])


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
        ValueError: the id is empty or too long.
    """
    text = text.strip()
    if not 0 < len(text.encode()) <= MAX_USER_BYTES:
        raise ValueError(f"a user id has 1 to {MAX_USER_BYTES} bytes, found {_show(text)}")
    return text


def parse_int64(text: str) -> int | None:
    """Parse an integer in ASCII digits, with or without a sign; None if it is not one, or exceeds int64."""
    if len(text) < 19 and text.isdecimal() and text.isascii():  # the fast path, nearly always
        return int(text)
    text = text.strip()
    if len(text) > 40 or not _WHOLE.fullmatch(text) or int(text) not in INT64:
        return None
    return int(text)


def _open(path: PathName, decoding: Decoding) -> IO[str]:
    if path == "-":
        return TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors=decoding)
    path = Path(path)
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors=decoding)
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig", errors=decoding)
    return path.open(encoding="utf-8-sig", errors=decoding)


def _item(text: str) -> int:
    item = parse_int64(text)
    if not item:
        raise ValueError(f"an item id is a 64-bit integer other than 0 (padding), found {_show(text)}")
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
