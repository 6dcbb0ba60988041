"""Read click files, and put their clicks in the order in which they are replayed.

The formats are those of `model.data.files`, recognised line by line. In the train format, `order` is a rank within the
user or a unix time stamp in seconds. In the valid format, the user's history comes first, then the targets.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from configs.errors import InputError
from model.arrays import DoubleArray, IntVector
from model.data.files import DataError, is_user_line, lines, parse_click, parse_int64, parse_user

Order = Literal["auto", "rank", "time"]

#: Orders of at least this value are time stamps (March 1973), not ranks: no user has that many clicks.
FIRST_TIMESTAMP_S = 1e8
#: Larger time stamps (year 5138) are taken for milliseconds and refused.
LAST_TIMESTAMP_S = 1e11


class ClickFileError(InputError):
    """A click file that cannot be read. The message names the file, the line if there is one, and the remedy."""


@dataclass(frozen=True, slots=True)
class MalformedLine:
    """A line that is not a click: its file, its number, and what is wrong."""

    path: str
    line: int
    detail: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ClickLog:
    """N clicks of U users.

    Attributes:
        user_ids: (U,) ids as they go into messages: int where the text is a 64-bit integer, else str.
        user: (N,) index into `user_ids`.
        item: (N,) item ids.
        order: (N,) seconds since 1970 if `timed`, else a rank within the user. Ascending within each user.
        timed: True if `order` is a time.
        malformed: number of lines skipped.
    """

    user_ids: list[int | str]
    user: IntVector
    item: IntVector
    order: DoubleArray
    timed: bool
    malformed: int

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: IntVector) -> ClickLog:
        """Return the clicks with these indices, in this order."""
        return ClickLog(
            self.user_ids, self.user[index], self.item[index], self.order[index], self.timed, self.malformed
        )


def read_click_log(
    paths: Iterable[str | Path],
    *,
    order: Order = "auto",
    on_malformed: Callable[[MalformedLine], None] | None = None,
    on_file: Callable[[str], None] = lambda _path: None,
) -> ClickLog:
    """Read all clicks of the files, in file order; `in_time_order` sorts them.

    Args:
        order: meaning of the third column of the train format. "auto": a time stamp if every order of the files is at
            least 1e8, else a rank.
        on_malformed: called with every malformed line, which is skipped; None: the first one raises.
        on_file: called with each path before it is read.

    Raises:
        ClickFileError: a file cannot be read, or has a malformed line and there is no `on_malformed`, or has orders
            that contradict `order`.
    """
    vocabulary: dict[str, int] = {}
    user, item, rank = array("q"), array("q"), array("d")
    file_ends: list[tuple[str, int]] = []
    malformed = 0
    for path in map(str, paths):
        on_file(path)
        for number, line in _lines(path):
            try:
                clicks = parse_line(line)
            except ValueError as error:
                malformed += 1
                fault = MalformedLine(path, number, str(error))
                if on_malformed is None:
                    raise ClickFileError(f"{fault}. To skip such lines: --malformed skip") from None
                on_malformed(fault)
                continue
            for user_id, item_id, position in clicks:
                user.append(vocabulary.setdefault(user_id, len(vocabulary)))
                item.append(item_id)
                rank.append(position)
        file_ends.append((path, len(item)))
    orders = np.array(rank, dtype=np.float64)
    timed = _is_timed(orders, file_ends, order)
    user_ids = [_user_id(text) for text in vocabulary]
    users, items = np.array(user, dtype=np.int64), np.array(item, dtype=np.int64)
    return ClickLog(user_ids, users, items, orders if timed else _ranks(users, orders, file_ends), timed, malformed)


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


def parse_line(line: str) -> list[tuple[str, int, float]]:
    """Return (user id, item id, order) of each click on a line of either format.

    Raises:
        ValueError: the line is malformed; the message says how.
    """
    if is_user_line(line):
        user, history, targets = parse_user(line)
        return [(user, item, float(rank)) for rank, item in enumerate(history + targets)]
    return [parse_click(line)]


def _user_id(text: str) -> int | str:
    # Only the canonical form is an int: "007" and 7 are two users, because the text of an id is the message key.
    number = parse_int64(text)
    return number if number is not None and str(number) == text else text


def _is_timed(orders: DoubleArray, file_ends: list[tuple[str, int]], order: Order) -> bool:
    if order == "rank" or not len(orders):
        return False
    start, kinds = 0, {}
    for path, end in file_ends:
        part = orders[start:end]
        start = end
        if not len(part):
            continue
        if order == "time" and part.min() < FIRST_TIMESTAMP_S:
            raise ClickFileError(
                f"{path}: has orders below {FIRST_TIMESTAMP_S:.0f}, which are not time stamps; use --order rank"
            )
        kinds[bool(part.min() >= FIRST_TIMESTAMP_S)] = path
        if kinds.get(True) == path and part.max() >= LAST_TIMESTAMP_S:
            raise ClickFileError(f"{path}: its time stamps look like milliseconds; they must be seconds since 1970")
    if len(kinds) == 2:
        raise ClickFileError(
            f"{kinds[True]} has time stamps and {kinds[False]} has ranks: replay them separately, or use --order rank"
        )
    return True in kinds


def _ranks(user: IntVector, order: DoubleArray, file_ends: list[tuple[str, int]]) -> DoubleArray:
    """Return ranks that continue from file to file: a user's clicks in a later file come later."""
    file = np.repeat(np.arange(len(file_ends)), np.diff([0, *(end for _, end in file_ends)]))
    rank = np.empty(len(order))
    rank[np.lexsort((order, file, user))] = np.arange(len(order))
    return rank


def _lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        yield from lines(path, "replace")  # invalid UTF-8 makes only its own line malformed
    except DataError as error:
        raise ClickFileError(str(error)) from None
