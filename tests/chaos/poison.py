"""Messages that must neither stop a worker nor change what it serves: the traffic has some of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

import numpy as np

from model.arrays import FloatVector
from streams.errors import Reason
from streams.messages.clicks import MAX_CLICK_BYTES, Click, encode_click, user_key
from streams.messages.items import Item, encode_item
from tests.site import Site

#: Ids of the poisonous items, beside those that valid messages name, too.
POISONED_ITEMS = range(6_000, 6_010)
#: Ids of items that are never published.
_UNKNOWN_ITEMS = range(10**12, 2 * 10**12)
LOWEST, HIGHEST = -(2**63), 2**63 - 1


class Poison(NamedTuple):
    """A message, and the reason of its dead letter; None = it is valid, and gets none."""

    key: bytes
    value: bytes | None
    reason: Reason | None


def _at_item(item_id: int, reason: Reason | None) -> Callable[[Random, Click], Poison]:
    return lambda _, click: Poison(user_key(click.user_id), encode_click(click._replace(item_id=item_id)), reason)


def _unknown_item(rng: Random, click: Click) -> Poison:
    return _at_item(rng.choice(_UNKNOWN_ITEMS), None)(rng, click)


def _at_time(factor: int) -> Callable[[Random, Click], Poison]:
    return lambda _, click: Poison(
        user_key(click.user_id), encode_click(click._replace(ts=click.ts * factor)), "out_of_range"
    )


def _too_large(_: Random, click: Click) -> Poison:
    return Poison(user_key(click.user_id), encode_click(click._replace(event_id="x" * MAX_CLICK_BYTES)), "too_large")


def _wrong_key(_: Random, click: Click) -> Poison:
    return Poison(f"{click.user_id}?".encode(), encode_click(click), "bad_key")


#: Kind → makes a poisonous message of a valid click.
CLICKS: Mapping[str, Callable[[Random, Click], Poison]] = {
    "lowest id": _at_item(LOWEST, "out_of_range"),
    "highest id": _at_item(HIGHEST, "out_of_range"),
    "padding": _at_item(0, "out_of_range"),
    "unknown item": _unknown_item,
    "milliseconds": _at_time(1000),
    "negative time": _at_time(-1),
    "too large": _too_large,
    "wrong key": _wrong_key,
}


def not_json(rng: Random, click: Click) -> Poison:
    """Return random bytes under the user's key."""
    return Poison(user_key(click.user_id), b"\xff" + rng.randbytes(rng.randrange(99)), "not_json")


class PoisonousItems:
    """Makes item messages that must not be served.

    Args:
        site: has the model.
        rng: chooses.
        valid_ids: ids that valid messages name, too.
    """

    def __init__(self, site: Site, rng: Random, valid_ids: range) -> None:
        self._site = site
        self._rng = rng
        self._ids = [*valid_ids, *POISONED_ITEMS]
        self._kinds: tuple[Callable[[FloatVector], Poison], ...] = (
            lambda vector: self._value(LOWEST, vector, "out_of_range"),
            lambda vector: self._value(HIGHEST, vector, "out_of_range"),
            lambda _: Poison(str(LOWEST).encode(), None, "out_of_range"),
            lambda _: Poison(str(HIGHEST).encode(), None, "out_of_range"),
            lambda vector: self._value(self._id(), vector * 100, "wrong_norm"),
            lambda vector: self._value(self._id(), np.full_like(vector, 1e38), "wrong_norm"),
            lambda vector: self._value(self._id(), np.append(vector, vector[:1]), "wrong_dimension"),
            lambda vector: self._value(self._id(), vector, None, "another-version"),
        )

    def make(self, vector: FloatVector) -> Poison:
        """Return a message of one kind; `vector`, (D,), is a valid one."""
        return self._rng.choice(self._kinds)(vector)

    def _id(self) -> int:
        item_id: int = self._rng.choice(self._ids)
        return item_id

    def _value(self, item_id: int, vector: FloatVector, reason: Reason | None, version: str | None = None) -> Poison:
        item = Item(item_id, vector, version or self._site.artifact.model_version)
        return Poison(str(item_id).encode(), encode_item(item), reason)
