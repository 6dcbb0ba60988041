"""Clicks in the order in which they are replayed. `model.data.reader` reads them from files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.arrays import IntVector
from model.data.files import PathName, parse_int64
from model.data.malformed import MalformedLines
from model.data.reader import Order, read_columns


@dataclass(frozen=True, slots=True)
class ClickLog:
    """N clicks of U users.

    Attributes:
        user_ids: (U,) ids as they go into messages: int where the text is a 64-bit integer, else str.
        user: (N,) index into `user_ids`.
        item: (N,) item ids.
        order: (N,) int64 or float64, seconds since 1970 if `timed`, else a rank within the user.
        timed: True if `order` is a time.
    """

    user_ids: list[int | str]
    user: IntVector
    item: IntVector
    order: npt.NDArray[Any]
    timed: bool

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: IntVector) -> ClickLog:
        """Return the clicks with these indices, in this order."""
        return ClickLog(self.user_ids, self.user[index], self.item[index], self.order[index], self.timed)


def read_click_log(
    paths: Iterable[PathName], malformed: MalformedLines | None = None, order: Order = "auto"
) -> ClickLog:
    """Read all clicks of the files, in file order; `in_time_order` sorts them.

    Args:
        malformed: what to do with malformed lines; None = the first one raises. order: as for `read_columns`.

    Raises:
        DataError: as in `read_columns`.
    """
    columns = read_columns(paths, malformed or MalformedLines(), order)
    ids = [_user_id(text) for text in columns.users]
    return ClickLog(ids, columns.user.astype(np.int64), columns.item, columns.order, columns.timed)


def in_time_order(log: ClickLog, seed: int = 0) -> ClickLog:
    """Return the clicks in the order in which they are sent; every user's own order is kept.

    Clicks with time stamps are sorted by them; equal ones keep their order in the file. Ranks define no time between
    users, so each user's clicks are spread evenly over the whole run, from a random start: click k of n at (k + u) / n,
    with u drawn per user uniformly from [0, 1), by `seed`.
    """
    if log.timed:
        return log.take(np.argsort(log.order, kind="stable"))
    grouped = np.lexsort((log.order, log.user))
    user = log.user[grouped]
    length = np.bincount(user, minlength=len(log.user_ids))
    first = np.cumsum(length) - length
    position = np.arange(len(user)) - first[user]
    start = np.random.default_rng(seed).random(len(log.user_ids))
    moment = (position + start[user]) / length[user]
    return log.take(grouped[np.argsort(moment, kind="stable")])


def _user_id(text: str) -> int | str:
    # Only the canonical form is an int: "007" and 7 are two users, because the text of an id is the message key.
    number = parse_int64(text)
    return number if number is not None and str(number) == text else text
