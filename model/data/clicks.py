"""Read click files into compact arrays, for training and evaluation. `model.data.files` has the formats."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.arrays import IdVector, IntVector
from model.data.files import (
    UNDECODED,
    DataError,
    PathName,
    blocks,
    is_user_line,
    lines,
    parse_click,
    parse_user,
    user_id,
)

#: (U,) user ids: int64 if each is written as Python writes its number (not 07, +7 or -0), otherwise text, of dtype
#: object, so that one long id does not widen all others.
UserVector = npt.NDArray[Any]
Malformed = Literal["fail", "skip"]


@dataclass(frozen=True, eq=False)
class Clicks:
    """Clicks grouped by user, each user's oldest first.

    Attributes:
        users: (U,) ids, int64 or text, ascending after `read_clicks`.
        offsets: (U + 1,) int64; the clicks of user u are `items[offsets[u]:offsets[u + 1]]`.
        items: (C,) int64, item ids, or rows of a table of items.
        malformed: number of lines that were skipped.
    """

    users: UserVector
    offsets: IntVector
    items: IdVector
    malformed: int = 0

    def __len__(self) -> int:
        """Number of users."""
        return len(self.users)

    @property
    def lengths(self) -> IntVector:
        """Number of clicks of each user, (U,) int64."""
        return np.diff(self.offsets)

    def items_of(self, user: int) -> IdVector:
        """Return the items of the user at index `user`, (n,) int64, as a view."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def take(self, index: npt.NDArray[Any]) -> Clicks:
        """Return the users at these indices, in this order, as a copy."""
        return Clicks(self.users[index], *_spans(self.items, self.offsets[:-1][index], self.lengths[index]))

    def slice(self, begin: int, end: int) -> Clicks:
        """Return the users from index `begin` to before `end`, as views."""
        offsets = self.offsets[begin : end + 1]
        return Clicks(self.users[begin:end], offsets - offsets[0], self.items[offsets[0] : offsets[-1]])


class Holdout(NamedTuple):
    """Users to evaluate on: their earlier clicks and the later ones to predict. Both hold the same users."""

    history: Clicks
    targets: Clicks


def read_clicks(paths: Iterable[PathName], *, malformed: Malformed = "fail") -> Clicks:
    """Read all clicks of files in the train format; clicks with equal `order` stay in file order.

    Files are read in blocks. Besides one block, memory holds 20 bytes for each click (several times that while they are
    sorted) and the text of each user id once.

    Raises:
        DataError: a file cannot be read, or, with `malformed="fail"`, a line is malformed. With "skip" such lines are
            counted in `Clicks.malformed`.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise DataError("no click files given; name at least one in the train format `uid,item_id,order` (--data FILE)")
    codes = _UserCodes()
    parts = [_NO_CLICKS, *(part for path in files for part in _read_file(path, codes, malformed))]
    code = np.concatenate([part.users for part in parts])
    items = np.concatenate([part.items for part in parts])
    order = np.concatenate([part.order for part in parts])  # int64, or float64 as soon as one block has fractions
    users = _user_array(list(codes))
    ascending = np.argsort(users)
    user = np.argsort(ascending)[code]  # argsort of an argsort is its inverse: code → index among the ascending ids
    by_user = np.lexsort((order, user))  # stable
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    return Clicks(users[ascending], offsets, items[by_user], sum(part.malformed for part in parts))


def read_holdout(paths: Iterable[PathName], *, malformed: Malformed = "fail") -> Holdout:
    """Read users of files in the valid format; `target_item`, which is always 0, is ignored.

    Raises:
        DataError: as in `read_clicks`.
    """
    users: list[str] = []
    history: list[list[int]] = []
    targets: list[list[int]] = []
    skipped = 0
    for path in map(Path, paths):
        for number, line in lines(path, "replace"):
            try:
                user, past, future = parse_user(line)
                if not future:
                    raise ValueError("expected an eval_item:, found none")
            except ValueError as error:
                _fail_unless_skipped(path, number, error, malformed)
                skipped += 1
                continue
            users.append(user)
            history.append(past)
            targets.append(future)
    names = _user_array(users)
    return Holdout(_clicks_from_lists(names, history, skipped), _clicks_from_lists(names, targets, skipped))


def is_valid_format(path: PathName) -> bool:
    """Return whether the first line of the file is in the valid format; otherwise it should be in the train format."""
    return is_user_line(next(lines(Path(path), "replace"), (0, ""))[1])


def hold_out(clicks: Clicks) -> Holdout:
    """Split each user's clicks: the first 80 % are history, the rest targets. Users with one click are left out.

    This is the protocol of ComiRec (arXiv 2005.09347, section 4.1).
    """
    kept = clicks.take(np.flatnonzero(clicks.lengths >= 2))
    starts, lengths = kept.offsets[:-1], kept.lengths
    cut = lengths * 4 // 5
    return Holdout(
        Clicks(kept.users, *_spans(kept.items, starts, cut)),
        Clicks(kept.users, *_spans(kept.items, starts + cut, lengths - cut)),
    )


def split_users(clicks: Clicks, fraction: float, rng: np.random.Generator) -> tuple[Clicks, Clicks]:
    """Split users at random; return the users that are not held out, and the share `fraction` that is."""
    index = rng.permutation(len(clicks))
    held = round(fraction * len(clicks))
    return clicks.take(np.sort(index[held:])), clicks.take(np.sort(index[:held]))


class _Columns(NamedTuple):
    """Clicks in file order: user codes (int32), item ids (int64), orders (int64 or float64), each (C,)."""

    users: npt.NDArray[np.int32]
    items: IdVector
    order: npt.NDArray[Any]
    malformed: int = 0


#: Makes concatenation work if all files are empty.
_NO_CLICKS = _Columns(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))


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


def _read_file(path: Path, codes: _UserCodes, malformed: Malformed) -> Iterator[_Columns]:
    """Read block by block: with NumPy's parser, or, if that fails, line by line to name or skip the malformed lines."""
    for number, block in blocks(path, "replace"):
        yield _read_block(block, codes) or _read_lines(path, number, block, codes, malformed)


def _read_block(block: str, codes: _UserCodes) -> _Columns | None:
    """Return the clicks of a block, or None if a line is not a click."""
    for order in (np.int64, np.float64):
        dtype = np.dtype([("user", object), ("item", np.int64), ("order", order)])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an empty block, or "1.5" truncated to an integer
                table = np.loadtxt(block.split("\n"), dtype=dtype, delimiter=",", comments=None, ndmin=1)
            if UNDECODED in block or not table["item"].all() or not np.isfinite(table["order"]).all():
                return None
            return _Columns(codes.encode(table["user"]), table["item"].copy(), table["order"].copy())
        except (ValueError, Warning):
            continue
    return None


def _read_lines(path: Path, first: int, block: str, codes: _UserCodes, malformed: Malformed) -> _Columns:
    users, items, order = array("i"), array("q"), list[int | float]()
    skipped = 0
    for number, line in enumerate(block.split("\n"), first):
        if not (stripped := line.strip()):
            continue
        try:
            user, item, rank = parse_click(stripped)
        except ValueError as error:
            _fail_unless_skipped(path, number, error, malformed)
            skipped += 1
            continue
        users.append(codes[user])
        items.append(item)
        order.append(rank)
    whole = all(isinstance(rank, int) for rank in order)
    ranks = np.array(order, dtype=np.int64 if whole else np.float64)
    return _Columns(np.array(users, dtype=np.int32), np.array(items, dtype=np.int64), ranks, skipped)


def _fail_unless_skipped(path: Path, number: int, error: ValueError, malformed: Malformed) -> None:
    """Raise DataError with file, line and remedy, unless malformed lines are skipped."""
    if malformed == "fail":
        remedy = "fix the line, or set data.malformed to skip"
        raise DataError(f"{path}, line {number}: {error} ({remedy})") from None


def _user_array(users: Sequence[str]) -> UserVector:
    try:
        numbers = np.array([int(user) for user in users], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array(users, dtype=object)
    return numbers if list(map(str, numbers.tolist())) == users else np.array(users, dtype=object)


def _clicks_from_lists(users: UserVector, rows: Sequence[Sequence[int]], malformed: int) -> Clicks:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Clicks(users, offsets, np.array([item for row in rows for item in row], dtype=np.int64), malformed)


def _spans(values: IdVector, starts: IntVector, lengths: IntVector) -> tuple[IntVector, IdVector]:
    """Concatenate the spans `values[start:start + length]`; return their offsets and values."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return offsets, values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
