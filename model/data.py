"""Click files to compact arrays: the AmazonBook formats as ComiRec and PaddleRec publish them.

Train format: `uid,item_id,order` on each line, no header; `order` is a time stamp or a rank. Valid format: one user on
each line, `user_id:7 target_item:0 hist_item:3 … eval_item:9 …`, where `target_item` may be missing. Files that end in
.gz or .xz are decompressed. Item ids are any int64 except 0, which is padding.
"""

from __future__ import annotations

import gzip
import lzma
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

IdVector = npt.NDArray[np.int64]
#: User ids: int64 when every one is a whole number, text otherwise.
UserVector = npt.NDArray[Any]
Malformed = Literal["fail", "skip"]
PathName = str | PathLike[str]

INT64 = range(-(2**63), 2**63)
#: Characters of a malformed line that an error message shows.
SHOWN = 80
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)


class DataError(Exception):
    """A click file that cannot be used. The message names the file, the line and what was expected."""


@dataclass(frozen=True, eq=False)
class Clicks:
    """Clicks grouped by user, each user's oldest first.

    Attributes:
        users: (U,) ids, ascending, int64 or text.
        offsets: (U + 1,) int64; user u's clicks are `items[offsets[u]:offsets[u + 1]]`.
        items: (C,) int64, item ids, or rows of a table after `numbered`.
        malformed: lines that were left out.
    """

    users: UserVector
    offsets: IdVector
    items: IdVector
    malformed: int = 0

    def __len__(self) -> int:
        """Number of users."""
        return len(self.users)

    @property
    def lengths(self) -> IdVector:
        """(U,) int64, clicks of each user."""
        return np.diff(self.offsets)

    def of(self, user: int) -> IdVector:
        """The clicks of the user at index `user`, a view."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def take(self, index: npt.NDArray[Any]) -> Clicks:
        """The users at these indices, in this order."""
        return Clicks(self.users[index], *_spans(self.items, self.offsets[:-1][index], self.lengths[index]))


class Holdout(NamedTuple):
    """Users for measuring: what they clicked first, and what they clicked then. Both hold the same users."""

    history: Clicks
    targets: Clicks


def read_clicks(paths: Iterable[PathName], *, malformed: Malformed = "fail") -> Clicks:
    """All clicks of files in the train format; clicks with equal `order` stay in file order.

    User ids that are whole numbers in all files are compared as numbers (07 is 7), otherwise as text.

    Raises:
        DataError: a file cannot be read, or, with `malformed="fail"`, a line is malformed. With "skip" such lines are
            counted in `Clicks.malformed`.
    """
    columns = [_read_file(Path(path), malformed) for path in paths]
    if not columns:
        raise DataError("no click files given; name at least one in the train format `uid,item_id,order` (--data FILE)")
    users = _join_users([column.users for column in columns])
    items = np.concatenate([column.items for column in columns])
    order = np.concatenate([column.order for column in columns])  # int64, or float64 as soon as one file has fractions
    names, user = np.unique(users, return_inverse=True)
    by_user = np.lexsort((order, user))  # stable
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(names)))]).astype(np.int64)
    return Clicks(names, offsets, items[by_user], sum(column.malformed for column in columns))


def read_holdout(paths: Iterable[PathName], *, malformed: Malformed = "fail") -> Holdout:
    """Users of files in the valid format; `target_item`, which is always 0, is ignored.

    Raises:
        DataError: as in `read_clicks`.
    """
    users: list[int | str] = []
    history: list[list[int]] = []
    targets: list[list[int]] = []
    skipped = 0
    for path in map(Path, paths):
        for number, line in _lines(path):
            try:
                user, past, future = _parse_holdout(line)
            except ValueError as error:
                _report(path, number, line, error, malformed)
                skipped += 1
                continue
            users.append(user)
            history.append(past)
            targets.append(future)
    names = _user_array(users)
    return Holdout(_ragged(names, history, skipped), _ragged(names, targets, skipped))


def is_valid_format(path: PathName) -> bool:
    """Whether the file's first line is in the valid format (otherwise it should be in the train format)."""
    return next(_lines(Path(path)), (0, ""))[1].startswith("user_id:")


def hold_out(clicks: Clicks) -> Holdout:
    """First 80 % of each user's clicks as history, the rest as targets; users with one click are left out.

    The protocol of ComiRec (arXiv 2005.09347, section 4.1).
    """
    kept = clicks.take(np.flatnonzero(clicks.lengths >= 2))
    starts, lengths = kept.offsets[:-1], kept.lengths
    cut = lengths * 4 // 5
    return Holdout(
        Clicks(kept.users, *_spans(kept.items, starts, cut)),
        Clicks(kept.users, *_spans(kept.items, starts + cut, lengths - cut)),
    )


def split_users(clicks: Clicks, fraction: float, rng: np.random.Generator) -> tuple[Clicks, Clicks]:
    """Users drawn at random: all but `fraction` of them, and the others."""
    index = rng.permutation(len(clicks))
    held = round(fraction * len(clicks))
    return clicks.take(np.sort(index[held:])), clicks.take(np.sort(index[:held]))


class _Columns(NamedTuple):
    users: UserVector
    items: IdVector
    order: npt.NDArray[Any]
    malformed: int


def _read_file(path: Path, malformed: Malformed) -> _Columns:
    """NumPy's own parser for the usual file; line by line where it gives up, to allow text or to name the line."""
    for order in (np.int64, np.float64):
        dtype = np.dtype([("user", np.int64), ("item", np.int64), ("order", order)])
        try:
            with warnings.catch_warnings(), _open(path) as file:
                warnings.simplefilter("error")  # an empty file, or "1.5" cut down to a whole number
                table = np.loadtxt(file, dtype=dtype, delimiter=",", comments=None, ndmin=1)
        except OSError as error:
            raise _unreadable(path, error) from None
        except (ValueError, Warning, EOFError, lzma.LZMAError):
            continue
        if table["item"].all() and np.isfinite(table["order"]).all():
            return _Columns(table["user"].copy(), table["item"].copy(), table["order"].copy(), 0)
    return _read_slowly(path, malformed)


def _read_slowly(path: Path, malformed: Malformed) -> _Columns:
    users: list[int | str] = []
    items: list[int] = []
    order: list[int | float] = []
    skipped = 0
    for number, line in _lines(path):
        try:
            user, item, place = _parse_click(line)
        except ValueError as error:
            _report(path, number, line, error, malformed)
            skipped += 1
            continue
        users.append(user)
        items.append(item)
        order.append(place)
    whole = all(isinstance(place, int) for place in order)
    places = np.array(order, dtype=np.int64 if whole else np.float64)
    return _Columns(_user_array(users), np.array(items, dtype=np.int64), places, skipped)


def _parse_click(line: str) -> tuple[int | str, int, int | float]:
    fields = line.split(",")
    if len(fields) != 3:
        raise ValueError("expected three fields, `uid,item_id,order`, and no header")
    order = _int64(fields[2])
    if order is None:
        try:
            place = float(fields[2])
        except ValueError:
            place = math.nan
        if not math.isfinite(place):
            raise ValueError("order must be a number, such as a time stamp or a rank")
        return _user(fields[0]), _item(fields[1]), place
    return _user(fields[0]), _item(fields[1]), order


def _parse_holdout(line: str) -> tuple[int | str, list[int], list[int]]:
    user: int | str | None = None
    lists: dict[str, list[int]] = {"hist_item": [], "eval_item": []}
    for field in line.split():
        name, separator, text = field.partition(":")
        if name == "user_id" and separator and user is None:
            user = _user(text)
        elif name in lists:
            lists[name].append(_item(text))
        elif name != "target_item":
            raise ValueError("expected one user_id: and fields target_item:, hist_item: and eval_item:")
    if user is None or not lists["eval_item"]:
        raise ValueError("user_id: or eval_item: is missing")
    return user, lists["hist_item"], lists["eval_item"]


def _user(text: str) -> int | str:
    text = text.strip()
    if not text:
        raise ValueError("the user id is empty")
    number = _int64(text)
    return text if number is None else number


def _item(text: str) -> int:
    item = _int64(text)
    if item is None:
        raise ValueError("item_id must be a whole number of 64 bits")
    if item == 0:
        raise ValueError("item_id 0 is reserved for padding")
    return item


def _int64(text: str) -> int | None:
    text = text.strip()
    if len(text) < 19 and text.isascii() and text.isdecimal():  # nearly always
        return int(text)
    if len(text) > 40 or not _WHOLE.fullmatch(text) or int(text) not in INT64:
        return None
    return int(text)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1; blank ones are left out."""
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if stripped := line.strip():
                    yield number, stripped
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{path}: cannot be read ({reason}); check the path, and that the file is UTF-8 text, .gz or .xz")


def _report(path: Path, number: int, line: str, error: ValueError, malformed: Malformed) -> None:
    if malformed == "fail":
        shown = line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
        remedy = "mend the line, or set data.malformed to skip"
        raise DataError(f"{path}, line {number}: {error}; found {shown!r} ({remedy})") from None


def _user_array(users: Sequence[int | str]) -> UserVector:
    if all(isinstance(user, int) for user in users):
        return np.array(users, dtype=np.int64)
    return np.array([str(user) for user in users])


def _join_users(parts: list[UserVector]) -> UserVector:
    filled = [part for part in parts if len(part)] or parts[:1]
    if all(part.dtype == np.int64 for part in filled):
        return np.concatenate(filled)
    return np.concatenate([part.astype(str) for part in filled])


def _ragged(users: UserVector, rows: Sequence[Sequence[int]], malformed: int) -> Clicks:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Clicks(users, offsets, np.array([item for row in rows for item in row], dtype=np.int64), malformed)


def _spans(values: IdVector, starts: IdVector, lengths: IdVector) -> tuple[IdVector, IdVector]:
    """Offsets and values of the spans `values[start:start + length]`, one after the other."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return offsets, values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
