"""Read click files into columns: the only reader of clicks, for training, evaluation, replay and demo.

The order of clicks is a rank among the user's clicks or a time, by one rule (`Order`). With "auto", a file with any
order from `MIN_SECONDS` is a file of times, in which every other number is a malformed line, so that one wrong time
stamp does not turn all of them into ranks.
"""

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.arrays import IdVector, Mask
from model.data.files import (
    UNDECODED,
    DataError,
    PathName,
    blocks,
    fault_of_header,
    is_user_line,
    parse_click,
    parse_user,
    user_id,
)
from model.data.limits import MAX_ITEM_ID, MAX_SECONDS, MIN_ITEM_ID, MIN_SECONDS, fault_of_seconds, unit_of
from model.data.malformed import MalformedLines

Order = Literal["auto", "rank", "time"]

#: An item id, the field between two commas, that is not written as Python writes the number.
_OTHER_SPELLING = re.compile(r",[^\S\n]*(?:\+|-?0[0-9])[0-9]*[^\S\n]*,")
#: The same, if no comma is followed by a sign or a space.
_LEADING_ZERO = re.compile(",0[0-9]*,")
_SPACES = " \t\v\f\x1c\x1d\x1e\x1f"


class Columns(NamedTuple):
    """Clicks in the order of the files.

    Attributes:
        users: (U,) ids as text.
        user: (C,) int32, index into `users`; item: (C,) int64, item ids.
        order: (C,) int64 or float64, seconds since 1970 if `timed`, else ranks; of the same user's clicks with equal
            numbers, the first one is the older one.
        timed: whether `order` is a time.
    """

    users: list[str]
    user: npt.NDArray[np.int32]
    item: IdVector
    order: npt.NDArray[Any]
    timed: bool


class _Block(NamedTuple):
    """Columns of successive lines, as in `Columns`, with their numbers, (C,), from 1."""

    user: npt.NDArray[np.int32]
    item: IdVector
    order: npt.NDArray[Any]
    lines: Sequence[int] | npt.NDArray[np.int64]

    def take(self, mask: Mask) -> _Block:
        return _Block(self.user[mask], self.item[mask], self.order[mask], np.asarray(self.lines)[mask])


#: Makes concatenation work if all files are empty.
_NO_CLICKS = _Block(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), range(0))


def read_columns(paths: Iterable[PathName], malformed: MalformedLines, order: Order = "auto") -> Columns:
    """Read all clicks of files in the train or the valid format; the first line shows which one a file has.

    In the valid format, the history comes before the targets, and all are ranks. If files have ranks, a user's clicks
    in a later file come later.

    Files are read in blocks. Besides one block, memory holds 20 bytes for each click and each user id once.

    Args:
        order: meaning of the third column of the train format.

    Raises:
        DataError: a file cannot be read, has times in another unit, or no line of any file is a click; files have
            times and others ranks; or a line is malformed and `malformed` does not skip it.
    """
    codes = _UserCodes()
    parts: list[_Block] = [_NO_CLICKS]
    files: list[int] = []  # clicks of each file
    kinds: dict[bool, PathName] = {}
    for path in paths:
        found, timed = _read_file(path, codes, malformed, order)
        parts += found
        files.append(sum(len(block.item) for block in found))
        if files[-1]:
            kinds.setdefault(timed, path)
    malformed.check()
    if len(kinds) == 2:
        raise DataError(
            f"{kinds[True]} has time stamps and {kinds[False]} has ranks, so their clicks have no common order: "
            f"read them separately{malformed.option('order', 'rank')}"
        )
    user, item, ranks = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:3])
    users = list(codes)
    clicked = np.bincount(user, minlength=len(users)) > 0  # some users have no click, or only malformed ones
    if not clicked.all():
        users = [users[code] for code in np.flatnonzero(clicked)]
        user = (np.cumsum(clicked, dtype=np.int32) - 1)[user].astype(np.int32)
    if True not in kinds and len(files) > 1:
        by_file = np.lexsort((ranks, np.repeat(np.arange(len(files)), files)))
        ranks = np.empty(len(by_file), np.int64)
        ranks[by_file] = np.arange(len(by_file))
    return Columns(users, user, item, ranks, True in kinds)


class _UserCodes(dict[str, int]):
    """User id → code; codes count up from 0 in the order in which ids are first looked up.

    A look-up raises ValueError if the text is not a user id.
    """

    def __missing__(self, user: str) -> int:
        self[user_id(user)] = code = len(self)
        return code

    def encode(self, fields: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return the codes, (N,) int32, of the user ids in these fields, (N,) texts, N at least 1."""
        # In most files the clicks of a user are adjacent, so each run of equal ids is looked up only once.
        starts = np.flatnonzero(np.append(True, fields[1:] != fields[:-1]))
        codes = np.fromiter(map(self.__getitem__, map(str.strip, fields[starts])), np.int32, len(starts))
        return np.repeat(codes, np.diff(starts, append=len(fields)))


def _read_file(path: PathName, codes: _UserCodes, malformed: MalformedLines, order: Order) -> tuple[list[_Block], bool]:
    """Return the clicks of one file, and whether their order is a time."""
    found: list[_Block] = []
    valid_format: bool | None = None
    for number, block in blocks(path, "replace"):
        if valid_format is None and (begin := block.lstrip()):
            valid_format = is_user_line(begin)
        if valid_format:
            found.append(_read_users(path, number, block, codes, malformed))
        else:
            fast = _read_block(number, block, codes)
            malformed.add_lines(path, len(fast.lines) if fast else 0)
            found.append(fast or _read_lines(path, number, block, codes, malformed))
    found = [block for block in found if len(block.item)]
    if valid_format or order == "rank" or not found:
        return found, False
    if order == "auto" and max(block.order.max() for block in found) < MIN_SECONDS:
        return found, False
    return _only_times(path, found, malformed), True


def _only_times(path: PathName, found: list[_Block], malformed: MalformedLines) -> list[_Block]:
    """Leave out the clicks whose order is no time: their lines are malformed."""
    least = min(block.order.min() for block in found)
    if least >= MAX_SECONDS and (unit := unit_of(least)) is not None:
        raise DataError(
            f"{path}: its times are in {unit[0]}, and have to be in seconds since 1970: divide the third column by "
            f"{unit[1]}{malformed.option('order', 'rank', ', or, if it is a rank: ')}"
        )
    kept = []
    for block in found:
        wrong = (block.order < MIN_SECONDS) | (block.order >= MAX_SECONDS)
        if wrong.any():
            first = int(np.argmax(wrong))
            reason = fault_of_seconds(block.order[first].item())
            advice = malformed.option("order", "rank", "; if the third column is a rank: ")
            malformed.skip(path, int(block.lines[first]), f"{reason}{advice}", int(wrong.sum()))
            block = block.take(~wrong)
        kept.append(block)
    return kept


def _read_block(first: int, block: str, codes: _UserCodes) -> _Block | None:
    """Return the clicks of a block by NumPy's parser, or None if a line is not a click."""
    for order in (np.int64, np.float64):
        dtype = np.dtype([("user", object), ("item", np.int64), ("order", order)])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an empty block, or "1.5" truncated to an integer
                table = np.loadtxt(block.split("\n"), dtype=dtype, delimiter=",", comments=None, ndmin=1)
            items = table["item"]
            if UNDECODED in block or not items.all() or items.min() < MIN_ITEM_ID or items.max() > MAX_ITEM_ID:
                return None
            if not np.isfinite(table["order"]).all() or _has_other_spelling(block):
                return None
            return _Block(
                codes.encode(table["user"]), items.copy(), table["order"].copy(), _numbers(first, block, len(table))
            )
        except (ValueError, Warning):
            continue
    return None


def _has_other_spelling(block: str) -> bool:
    """Return whether an item id is not written as Python writes the number, such as 007: texts that differ would be one
    item. Nearly always, no comma is followed by a sign or a space; that is found out much faster than by a pattern.
    """
    if block.isascii() and ",+" not in block and ",-0" not in block and not any(space in block for space in _SPACES):
        return _LEADING_ZERO.search(block) is not None
    return _OTHER_SPELLING.search(block) is not None


def _numbers(first: int, block: str, rows: int) -> Sequence[int] | npt.NDArray[np.int64]:
    """Return the numbers of the `rows` lines of a block that are not blank; `first` is that of its first line."""
    if block.count("\n") + (not block.endswith("\n")) == rows:
        return range(first, first + rows)
    return np.array([number for number, line in enumerate(block.split("\n"), first) if line.strip()], np.int64)


def _read_lines(path: PathName, first: int, block: str, codes: _UserCodes, malformed: MalformedLines) -> _Block:
    """Read line by line, to name or skip the malformed lines."""
    users, items, numbers, order = array("i"), array("q"), array("q"), list[int | float]()
    lines = list(_lines(first, block))
    malformed.add_lines(path, len(lines))
    for number, line in lines:
        try:
            user, item, rank = parse_click(line)
        except ValueError as error:
            malformed.skip(path, number, (fault_of_header(line) if number == 1 else None) or error)
            continue
        users.append(codes[user])
        items.append(item)
        order.append(rank)
        numbers.append(number)
    whole = all(isinstance(rank, int) for rank in order)
    ranks = np.array(order, dtype=np.int64 if whole else np.float64)
    return _Block(np.array(users, np.int32), np.array(items, np.int64), ranks, np.array(numbers, np.int64))


def _read_users(path: PathName, first: int, block: str, codes: _UserCodes, malformed: MalformedLines) -> _Block:
    """Read lines of the valid format: the clicks of a user on each. The order is the number of the line."""
    users, items, numbers = array("i"), array("q"), array("q")
    lines = list(_lines(first, block))
    malformed.add_lines(path, len(lines))
    for number, line in lines:
        try:
            user, history, targets = parse_user(line)
        except ValueError as error:
            malformed.skip(path, number, error)
            continue
        clicks = history + targets
        users.extend([codes[user]] * len(clicks))
        items.extend(clicks)
        numbers.extend([number] * len(clicks))
    order = np.array(numbers, np.int64)
    return _Block(np.array(users, np.int32), np.array(items, np.int64), order, order)


def _lines(first: int, block: str) -> Iterator[tuple[int, str]]:
    """Yield stripped lines with their numbers; blank lines are skipped."""
    for number, line in enumerate(block.split("\n"), first):
        if stripped := line.strip():
            yield number, stripped
