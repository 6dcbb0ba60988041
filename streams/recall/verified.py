"""Answers of the index that are not passed on unless they are complete.

Milvus may answer with success and fewer hits, or none: from a collection that was emptied or recreated, or while it
still reads what was not indexed before a restart. Such an answer is a fault to retry, not a list to publish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray, Mask
from model.serving.merge import PADDING
from streams.recall.ports import ItemIndex

#: Share of the canaries that a healthy server answers in full, at least: it misses a few of a thousand.
_FULL_CANARIES = 0.5


class CountedIndex(ItemIndex, Protocol):
    """An item index that remembers its last count; `streams.milvus.observed.ObservedIndex` is the real one."""

    @property
    def counted(self) -> int | None:
        """The number of items when they were last counted; None = never, or a request has failed since."""
        ...


@dataclass(frozen=True, slots=True)
class RequiredItems:
    """The items of the model that its collection must hold, before anything is recommended.

    Attributes:
        items: number of the model's items.
        share: share of them that is enough (`recall.catalogue_share`).
        artifact: folder of the model, for the remedy.
    """

    items: int
    share: float
    artifact: Path

    def missing(self, rows: int) -> str | None:
        """Return what a collection of so many items lacks, with the remedy; None = it holds enough."""
        if rows >= math.ceil(self.share * self.items):
            return None
        return (
            f"the collection holds {rows:,} of {self.items:,} items; publish them: python -m producers.items "
            f"--artifact {self.artifact}; if they were published, see python -m streams deadletters list; "
            "if so many are enough, lower recall.catalogue_share"
        )


class VerifiedIndex:
    """Reads an index, and raises TransientError where the answer may be incomplete. Safe to use from several threads.

    After a fault, the items are counted before the next read. The count sees every acknowledged write: a restarted
    server has read all of them when it answers, and the read that follows finds them.

    Not every query must be full, that is have as many hits as there are items, up to the limit: where most items of a
    part of the graph were removed, Milvus finds nothing from there until it has rebuilt the graph. But one query of
    each user must be, so that the user's list is. If one is not even in a second search, the canaries decide whether
    the server is at fault: if half of them are full, only the users of the other queries are.

    Args:
        index: the index of the model's items.
        queries_per_user: number of successive queries in a search that belong to one user.
        required: the items that the index must hold.
        canaries: (C, D) queries all over the space of the items.
        on_short: called for each search in which a user had no full query at first.
    """

    def __init__(
        self,
        index: CountedIndex,
        queries_per_user: int,
        required: RequiredItems,
        canaries: FloatArray,
        on_short: Callable[[], object] = lambda: None,
    ) -> None:
        self._index = index
        self._queries_per_user = queries_per_user
        self._required = required
        self._canaries = canaries
        self._on_short = on_short
        self._lacking: tuple[str, int] | None = None

    @property
    def incomplete(self) -> str | None:
        """Why the last search was not passed on; None = it was, or there was none."""
        lacking = self._lacking
        return None if lacking is None else lacking[0]

    def check(self) -> None:
        """Search with the canaries if the last search was not passed on: there may be no other one that ends that.

        Raises:
            TransientError: the index does not respond, or lacks items.
        """
        if (lacking := self._lacking) is not None and self._answers_canaries(lacking[1], self._count()):
            self._lacking = None

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        """See `streams.recall.ports.ItemReader.search`. Users whose part of the graph is missing may have no hits.

        Raises:
            TransientError: the index does not respond, lacks items, or does not find as many as it holds.
        """
        rows = self._verified_rows()
        answer = self._index.search(queries, limit)
        if not self._is_full(answer[0], rows):
            self._on_short()
            rows = self._count()
            if not self._is_full(answer[0], rows):  # otherwise, items had been removed
                answer = self._index.search(queries, limit)
                if not self._is_full(answer[0], rows) and not self._answers_canaries(limit, rows):
                    fewest = int((answer[0] != PADDING).sum(axis=1).min())
                    detail = (
                        f"a search finds {fewest} of the {min(limit, rows)} items asked for, although the collection "
                        f"holds {rows:,}: nothing is recommended until it finds them"
                    )
                    self._lacking = detail, limit
                    raise TransientError("Milvus", detail)
        self._lacking = None
        return answer

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        """See `streams.recall.ports.ItemReader.get`.

        Raises:
            TransientError: the index does not respond, or lacks items.
            RefusedData: it cannot look up one of the ids.
        """
        self._verified_rows()
        return self._index.get(ids)

    def _verified_rows(self) -> int:
        """Return the number of items; count them if a request has failed since the last count, or some are missing."""
        rows = self._index.counted
        return self._count() if rows is None or self._required.missing(rows) is not None else rows

    def _count(self) -> int:
        rows = self._index.describe().count
        missing = self._required.missing(rows)
        if missing is not None:
            raise TransientError("Milvus", missing)
        return rows

    def _answers_canaries(self, limit: int, rows: int) -> bool:
        full = self._full(self._index.search(self._canaries, limit)[0], rows)
        return bool(full.mean() >= _FULL_CANARIES)

    def _is_full(self, ids: IdArray, rows: int) -> bool:
        """Return whether each user has a full query."""
        return bool(self._full(ids, rows).reshape(-1, self._queries_per_user).any(axis=1).all())

    @staticmethod
    def _full(ids: IdArray, rows: int) -> Mask:
        """Return for each query, (Q,) bool, whether it has as many hits as there are items, up to the limit."""
        expected = min(ids.shape[1], rows)
        # Padding is at the end.
        return ids[:, expected - 1] != PADDING if expected else np.ones(len(ids), dtype=bool)
