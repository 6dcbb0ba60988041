"""Click files to compact arrays, for training and measuring; the formats are those of `model.clickfile`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.clickfile import DataError, PathName, holds_user, int64, lines, opened, parse_click, parse_user

IdVector = npt.NDArray[np.int64]
#: User ids: int64 when every one is a whole number, text otherwise.
UserVector = npt.NDArray[Any]
Malformed = Literal["fail", "skip"]


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
    users: list[str] = []
    history: list[list[int]] = []
    targets: list[list[int]] = []
    skipped = 0
    for path in map(Path, paths):
        for number, line in lines(path):
            try:
                user, past, future = parse_user(line)
                if not future:
                    raise ValueError("expected an eval_item:, found none")
            except ValueError as error:
                _report(path, number, error, malformed)
                skipped += 1
                continue
            users.append(user)
            history.append(past)
            targets.append(future)
    names = _user_array(users)
    return Holdout(_ragged(names, history, skipped), _ragged(names, targets, skipped))


def is_valid_format(path: PathName) -> bool:
    """Whether the file's first line is in the valid format (otherwise it should be in the train format)."""
    return holds_user(next(lines(Path(path)), (0, ""))[1])


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
            with warnings.catch_warnings(), opened(path) as file:
                warnings.simplefilter("error")  # an empty file, or "1.5" cut down to a whole number
                table = np.loadtxt(file, dtype=dtype, delimiter=",", comments=None, ndmin=1)
        except (ValueError, Warning):
            continue
        if table["item"].all() and np.isfinite(table["order"]).all():
            return _Columns(table["user"].copy(), table["item"].copy(), table["order"].copy(), 0)
    return _read_slowly(path, malformed)


def _read_slowly(path: Path, malformed: Malformed) -> _Columns:
    users: list[str] = []
    items: list[int] = []
    order: list[int | float] = []
    skipped = 0
    for number, line in lines(path):
        try:
            user, item, place = parse_click(line)
        except ValueError as error:
            _report(path, number, error, malformed)
            skipped += 1
            continue
        users.append(user)
        items.append(item)
        order.append(place)
    whole = all(isinstance(place, int) for place in order)
    places = np.array(order, dtype=np.int64 if whole else np.float64)
    return _Columns(_user_array(users), np.array(items, dtype=np.int64), places, skipped)


def _report(path: Path, number: int, error: ValueError, malformed: Malformed) -> None:
    if malformed == "fail":
        remedy = "mend the line, or set data.malformed to skip"
        raise DataError(f"{path}, line {number}: {error} ({remedy})") from None


def _user_array(users: Sequence[str]) -> UserVector:
    numbers = [int64(user) for user in users]
    if None not in numbers:
        return np.array(numbers, dtype=np.int64)
    return np.array([user if number is None else str(number) for user, number in zip(users, numbers, strict=True)])


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
