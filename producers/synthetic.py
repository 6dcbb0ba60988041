"""Synthetic clicks with a known structure: the taste of every item and the tastes of every user.

How a click is generated:

1. The catalogue is divided into `tastes` groups of items. Within a group, item r is as popular as 1 / (r + 1) (Zipf).
2. A user has exactly `tastes_per_user` active tastes at any time. With probability `drift` a click is preceded by a
   drift: a taste that is not active replaces the oldest active one.
3. A user stays with one taste for a run of clicks (`SWITCH_PROBABILITY`), then picks one of the active tastes again.
4. Within a run, the next item often (`FOLLOW_PROBABILITY`) comes shortly after the last one on the taste's shelf, a
   fixed order of its items, so that a model can learn this order, too. Otherwise the item is drawn by popularity.
5. Ids count from 1, in order of falling frequency, as in AmazonBook.

Users are generated in blocks of bounded size, and columns are narrow: peak memory is about 50 bytes per click.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.arrays import IntMatrix, IntVector

#: Columns with a row for each click: int32 where that suffices.
Column = npt.NDArray[np.signedinteger[Any]]

#: Probability that a click leaves the taste of the previous click: runs of about three clicks.
SWITCH_PROBABILITY = 0.3
#: Probability that a click within a run takes an item shortly after the last one on the shelf.
FOLLOW_PROBABILITY = 0.5
#: Largest step on the shelf, in items.
MAX_SHELF_STEP = 3
#: Shape of the Pareto distribution of clicks per user: the mean is about twice the median, as in AmazonBook.
ACTIVITY_SHAPE = 2.0
#: Minimum number of clicks per user, as in AmazonBook, if there are enough clicks.
MIN_CLICKS_PER_USER = 5
#: Rounds in which repeated items of a user are drawn again: people seldom buy a book twice.
REDRAW_ROUNDS = 4
#: Clicks in one block of users.
BLOCK_CLICKS = 500_000
#: 2024-01-01 00:00 UTC in seconds since 1970, and the days within which users start.
FIRST_START_S = 1_704_067_200
START_DAYS = 30
#: Mean seconds between two clicks of one run, and between two runs.
CLICK_GAP_S, RUN_GAP_S = 60.0, 43_200.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes and rates of a synthetic data set.

    Raises:
        ValueError: the sizes contradict each other.
    """

    users: int
    items: int
    clicks: int
    tastes: int
    tastes_per_user: int
    drift: float
    order: Literal["rank", "time"] = "rank"

    def __post_init__(self) -> None:
        if min(self.users, self.items, self.clicks, self.tastes, self.tastes_per_user) < 1:
            raise ValueError("users, items, clicks, tastes and tastes-per-user must be at least 1")
        if self.clicks < self.users:
            raise ValueError(f"{self.clicks} clicks are not enough for {self.users} users: each has at least one")
        if self.items < self.tastes:
            raise ValueError(f"{self.items} items cannot be divided into {self.tastes} tastes")
        if self.tastes_per_user > self.tastes:
            raise ValueError(
                f"tastes-per-user is {self.tastes_per_user}, of {self.tastes} tastes in all: use more tastes"
            )
        if not 0 <= self.drift <= 1:
            raise ValueError("drift is a probability: 0 to 1")
        if self.drift > 0 and self.tastes_per_user == self.tastes:
            raise ValueError("every user has every taste, so there is none to drift to: use drift 0 or more tastes")


@dataclass(frozen=True, slots=True)
class SyntheticClicks:
    """C clicks of U users on N items: users 0 to U-1 one after the other, each in its order.

    Attributes:
        user, item, order: (C,) user ids, item ids from 1, rank from 0 or seconds since 1970.
        taste: (C,) the taste that the click was drawn from; always the taste of its item.
        item_taste: (N + 1,) taste of each item id; -1 for id 0, which is not an item.
        first_tastes, last_tastes: (U, K) active tastes of each user at the first and at the last click.
        drifts: (U,) number of drifts of each user.
    """

    user: Column
    item: Column
    order: Column
    taste: Column
    item_taste: IntVector
    first_tastes: IntMatrix
    last_tastes: IntMatrix
    drifts: IntVector


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """Items before ids are assigned: taste t has the items base[t] … base[t] + size[t] - 1, most popular first."""

    base: IntVector  # (T,)
    size: IntVector  # (T,)
    shelf: IntVector  # (N,) item at each position; taste t has positions base[t] …, its items shuffled
    position: IntVector  # (N,) position of each item: the inverse of `shelf`
    cumulative: npt.NDArray[np.float64]  # (longest taste,) sum of 1 / (r + 1)


def generate(shape: Shape, seed: int = 0, on_progress: Callable[[int], None] = lambda _clicks: None) -> SyntheticClicks:
    """Generate clicks, the same for the same arguments. `on_progress` gets the number of clicks generated so far."""
    rng = np.random.default_rng(seed)
    catalogue = _catalogue(shape, rng)
    counts = _clicks_per_user(shape, rng)
    # User u gets tastes in the order perm_u(j) = (first + step · j) mod T, j = 0, 1, …, which visits all T tastes,
    # because T and the step have no common divisor.
    first = rng.integers(shape.tastes, size=shape.users)
    steps = np.flatnonzero(np.gcd(np.arange(1, shape.tastes + 1), shape.tastes) == 1) + 1
    step: IntVector = rng.choice(steps, size=shape.users)

    blocks, drifts, done = [], np.zeros(shape.users, np.int64), 0
    for begin, end in _blocks(counts):
        user = np.repeat(np.arange(begin, end), counts[begin:end])
        block = _block(shape, catalogue, user, first, step, rng)
        blocks.append((user.astype(np.int32), *block[:3]))
        drifts[begin:end] = block[3][np.cumsum(counts[begin:end]) - 1]
        done += len(user)
        on_progress(done)
    users, raw, taste, order = (np.concatenate(column) for column in zip(*blocks, strict=True))

    by_frequency = np.argsort(-np.bincount(raw, minlength=shape.items), kind="stable")
    new_id = np.empty(shape.items, np.int32)
    new_id[by_frequency] = np.arange(1, shape.items + 1)
    raw_taste = np.repeat(np.arange(shape.tastes), catalogue.size)
    active = np.arange(shape.tastes_per_user)
    return SyntheticClicks(
        user=users,
        item=new_id[raw],
        order=order,
        taste=taste,
        item_taste=np.concatenate(([-1], raw_taste[by_frequency])),
        first_tastes=(first[:, None] + step[:, None] * active) % shape.tastes,
        last_tastes=(first[:, None] + step[:, None] * (drifts[:, None] + active)) % shape.tastes,
        drifts=drifts,
    )


def _catalogue(shape: Shape, rng: np.random.Generator) -> _Catalogue:
    size = np.full(shape.tastes, shape.items // shape.tastes)
    size[: shape.items % shape.tastes] += 1
    base = np.cumsum(size) - size
    taste = np.repeat(np.arange(shape.tastes), size)
    # Sorting by taste, then by a random number, shuffles within each taste.
    shelf = np.lexsort((rng.random(shape.items), taste))
    position = np.empty(shape.items, np.int64)
    position[shelf] = np.arange(shape.items)
    return _Catalogue(base, size, shelf, position, np.cumsum(1.0 / np.arange(1, size[0] + 1)))


def _clicks_per_user(shape: Shape, rng: np.random.Generator) -> IntVector:
    least = min(MIN_CLICKS_PER_USER, shape.clicks // shape.users)
    activity = rng.pareto(ACTIVITY_SHAPE, shape.users) + 0.1  # above 0, so that the sum is not 0
    return least + rng.multinomial(shape.clicks - least * shape.users, activity / activity.sum())


def _blocks(counts: IntVector) -> Iterator[tuple[int, int]]:
    """Yield (first user, last user + 1) of runs of users with about BLOCK_CLICKS clicks."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + BLOCK_CLICKS, side="right")))
        yield begin, end
        begin = end


def _block(
    shape: Shape, catalogue: _Catalogue, user: IntVector, first: IntVector, step: IntVector, rng: np.random.Generator
) -> tuple[Column, Column, Column, IntVector]:
    """Return items (before ids are assigned), tastes, orders and drifts so far of the clicks of `user`, each (B,)."""
    B, K = len(user), shape.tastes_per_user
    index = np.arange(B)
    is_first = np.diff(user, prepend=-1) != 0  # (B,) first click of its user
    begin = np.maximum.accumulate(np.where(is_first, index, 0))

    drifted = np.cumsum((rng.random(B) < shape.drift) & ~is_first)
    drift = drifted - drifted[begin]  # (B,) drifts of the user so far
    switch = is_first | (rng.random(B) < SWITCH_PROBABILITY)
    slot = rng.integers(K, size=B)[np.maximum.accumulate(np.where(switch, index, 0))]
    # The active tastes after d drifts are perm_u(d) … perm_u(d + K - 1); slot s holds the one with index s modulo K.
    taste = (first[user] + step[user] * (drift + (slot - drift) % K)) % shape.tastes

    changed = is_first | (np.diff(taste, prepend=-1) != 0)
    drawn = changed | (rng.random(B) >= FOLLOW_PROBABILITY)
    walk = np.cumsum(np.where(drawn, 0, rng.integers(1, MAX_SHELF_STEP + 1, size=B)))
    last_drawn = np.maximum.accumulate(np.where(drawn, index, 0))
    start = catalogue.position[_popular(catalogue, taste, rng)][last_drawn]  # (B,) position where the walk began
    base, size = catalogue.base[taste], catalogue.size[taste]
    item = catalogue.shelf[base + (start - base + walk - walk[last_drawn]) % size]
    _redraw_repeated(catalogue, user, item, taste, rng)

    narrow = item.astype(np.int32), taste.astype(np.int32)
    if shape.order == "rank":
        return *narrow, (index - begin).astype(np.int32), drift
    gap = rng.exponential(np.where(switch, RUN_GAP_S, CLICK_GAP_S)).astype(np.int64) + 1
    elapsed = np.cumsum(gap)
    begins = rng.integers(FIRST_START_S, FIRST_START_S + START_DAYS * 86_400, size=B)[begin]
    return *narrow, begins + elapsed - elapsed[begin], drift


def _popular(catalogue: _Catalogue, taste: IntVector, rng: np.random.Generator) -> IntVector:
    """Draw one item of each of these tastes, by popularity."""
    size = catalogue.size[taste]
    rank = np.searchsorted(catalogue.cumulative, rng.random(len(taste)) * catalogue.cumulative[size - 1], side="right")
    return catalogue.base[taste] + np.minimum(rank, size - 1)


def _redraw_repeated(
    catalogue: _Catalogue, user: IntVector, item: IntVector, taste: IntVector, rng: np.random.Generator
) -> None:
    """Replace, in the array, items that the user clicked before; some repetitions remain."""
    for _ in range(REDRAW_ROUNDS):
        order = np.lexsort((item, user))  # stable: the first click on an item comes first
        repeated = np.zeros(len(item), bool)
        repeated[order[1:]] = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
        repeated = np.flatnonzero(repeated)
        if not len(repeated):
            return
        item[repeated] = _popular(catalogue, taste[repeated], rng)
