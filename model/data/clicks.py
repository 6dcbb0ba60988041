"""Clicks grouped by user, for training and evaluation. `model.data.files` has the formats of click files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.arrays import IdVector, IntVector
from model.data.files import DataError, PathName, is_user_line, lines, parse_user
from model.data.malformed import MalformedLines
from model.data.reader import Order, read_columns

#: (U,) user ids: int64 if each is written as Python writes its number (not 07, +7 or -0), otherwise text, of dtype
#: object, so that one long id does not widen all others.
UserVector = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Clicks:
    """Clicks grouped by user, each user's oldest first.

    Attributes:
        users: (U,) ids, int64 or text, ascending after `read_clicks`.
        offsets: (U + 1,) int64; the clicks of user u are `items[offsets[u]:offsets[u + 1]]`.
        items: (C,) int64, item ids, or rows of a table of items.
    """

    users: UserVector
    offsets: IntVector
    items: IdVector

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


def read_clicks(paths: Iterable[PathName], malformed: MalformedLines | None = None, order: Order = "auto") -> Clicks:
    """Read all clicks of files; of a user's clicks with equal `order`, the first one in the files is the oldest.

    Args:
        malformed: what to do with malformed lines; None = the first one raises. order: as for `read_columns`.

    Raises:
        DataError: as in `read_columns`.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise DataError("no click files given; name at least one in the train format `uid,item_id,order` (--data FILE)")
    columns = read_columns(files, malformed or MalformedLines(), order)
    users = _user_array(columns.users)
    ascending = np.argsort(users)
    user = np.argsort(ascending)[columns.user]  # argsort of an argsort is its inverse: code → index among ascending ids
    by_user = np.lexsort((columns.order, user))  # stable
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    return Clicks(users[ascending], offsets, columns.item[by_user])


def read_holdout(paths: Iterable[PathName], malformed: MalformedLines | None = None) -> Holdout:
    """Read users of files in the valid format; `target_item`, which is always 0, is ignored.

    Raises:
        DataError: as in `read_columns`.
    """
    malformed = malformed or MalformedLines()
    users: list[str] = []
    history: list[list[int]] = []
    targets: list[list[int]] = []
    for path in map(Path, paths):
        for number, line in lines(path, "replace"):
            malformed.add_lines(path, 1)
            try:
                user, past, future = parse_user(line)
                if not future:
                    raise ValueError("expected an eval_item:, found none")
            except ValueError as error:
                malformed.skip(path, number, error)
                continue
            users.append(user)
            history.append(past)
            targets.append(future)
    malformed.check()
    names = _user_array(users)
    return Holdout(_clicks_from_lists(names, history), _clicks_from_lists(names, targets))


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


def _user_array(users: Sequence[str]) -> UserVector:
    try:
        numbers = np.array([int(user) for user in users], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array(users, dtype=object)
    return numbers if list(map(str, numbers.tolist())) == users else np.array(users, dtype=object)


def _clicks_from_lists(users: UserVector, rows: Sequence[Sequence[int]]) -> Clicks:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Clicks(users, offsets, np.array([item for row in rows for item in row], dtype=np.int64))


def _spans(values: IdVector, starts: IntVector, lengths: IntVector) -> tuple[IntVector, IdVector]:
    """Concatenate the spans `values[start:start + length]`; return their offsets and values."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return offsets, values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
