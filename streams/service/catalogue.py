"""Items as the page shows them: names and categories, how often each was clicked in training, and a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from model.artifact import Artifact
from model.explanation.names import ItemName, ItemNames

#: Items that are read at most on the way to the wanted number: a search takes a fraction of a second.
_MAX_READ = 2_000_000
_NO_NAME = ItemName("")


class Catalogue:
    """The items of a model, the most clicked in training first.

    Args:
        artifact: the model.
        names: names and categories, by item id; empty = none.
    """

    def __init__(self, artifact: Artifact, names: ItemNames) -> None:
        self._artifact = artifact
        self._names = names
        self._popular = np.argsort(-artifact.item_counts, kind="stable")

    @property
    def named(self) -> bool:
        """True if there are names."""
        return bool(self._names)

    def popular(self, n: int) -> list[int]:
        """Return the ids of the most clicked items."""
        ids: list[int] = self._artifact.item_ids[self._popular[:n]].tolist()
        return ids

    def describe(self, item: int) -> dict[str, Any]:
        """Return an item as JSON values: id as text, because JavaScript has no integers of 64 bits; title, category."""
        name, category = self._names.get(item, _NO_NAME)
        return {"id": str(item), "title": name or None, "category": category or None}

    def search(self, text: str, limit: int) -> list[int]:
        """Return the items whose title, category or id contains all words, ids that begin with the text first.

        Without a text: the most clicked items, one of each category at a time.
        """
        words = text.casefold().split()
        if not words:
            return _first(self._one_of_each_category(), limit)
        exact = [item for item in _as_id(words) if self._artifact.rows(np.array([item]))[0] >= 0]
        by_words = (item for item in self._ids() if all(word in self._text(item) for word in words))
        return _first(dict.fromkeys([*exact, *_first(by_words, limit)]), limit)

    def _ids(self) -> Iterator[int]:
        for row in self._popular[:_MAX_READ].tolist():
            yield int(self._artifact.item_ids[row])

    def _text(self, item: int) -> str:
        name, category = self._names.get(item, _NO_NAME)
        return f"{item} {name} {category}".casefold()

    def _one_of_each_category(self) -> Iterator[int]:
        """Yield the most clicked item of each category, then the second of each, and so on."""
        shelves: dict[str, list[int]] = {}
        for item in self.popular(1000):
            shelves.setdefault(self._names.get(item, _NO_NAME).category, []).append(item)
        for place in range(max(map(len, shelves.values()), default=0)):
            yield from (shelf[place] for shelf in shelves.values() if len(shelf) > place)


def _as_id(words: list[str]) -> list[int]:
    """Return the text as an item id, if it can be one."""
    if len(words) != 1 or not words[0].removeprefix("-").isdecimal() or len(words[0]) > 20:
        return []
    item = int(words[0])
    return [item] if -(2**63) <= item < 2**63 else []


def _first(items: Iterable[int], limit: int) -> list[int]:
    return [item for item, _ in zip(items, range(limit), strict=False)]
