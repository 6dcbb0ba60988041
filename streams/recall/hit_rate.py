"""Online hit rate: the share of clicks whose item had been recommended before, beside a popularity baseline."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

#: Number of recommendations compared with a click: as many as a page could show. It is usual in the literature.
CUTOFF = 50


class OnlineHitRate:
    """The hit rate of recommendations over a stream of clicks, hit@k.

    A click is a hit if its item was among the first k items of the user's newest recommendation from *before* the
    click. Only clicks of users who had a recommendation are judged. The baseline recommends to every user the k most
    clicked items of training that the user has not clicked yet, and is judged on the same clicks.

    Args:
        popular: item ids, the most clicked in training first.
        cutoff: k, the number of items of a recommendation that are compared.
        max_users: users that are remembered; those without a message for longest are forgotten first, and then count
            as new users. None = all.

    Attributes:
        judged: clicks that were judged.
        hits, popular_hits: hits among them, of the recommendations and of the baseline.
    """

    def __init__(self, popular: Sequence[int], cutoff: int = CUTOFF, max_users: int | None = None) -> None:
        self.cutoff = cutoff
        self.judged = self.hits = self.popular_hits = 0
        self._popular = popular
        self._are_popular = frozenset(popular)
        self._max_users = max_users
        # User → the clicked ones among the popular items.
        self._clicked: OrderedDict[bytes, set[int]] = OrderedDict()
        # User → the last two recommendations: (offset of the click that they answer, the first k items).
        self._newest: dict[bytes, list[tuple[int, frozenset[int]]]] = {}

    def add_click(self, user: bytes, offset: int, item: int) -> None:
        """Judge a click.

        Args:
            user: the user's key; all clicks of a user are in one partition.
            offset: the click's offset in its partition.
            item: the item's id.
        """
        clicked = self._remember(user)
        # The topics are read side by side: the answer to this very click may have arrived before the click.
        before = [items for source, items in self._newest.get(user, []) if source < offset]
        if before:
            self.judged += 1
            self.hits += item in before[-1]
            self.popular_hits += item in self._most_popular(clicked)
        if item in self._are_popular:
            clicked.add(item)

    def add_recommendation(self, user: bytes, source_offset: int, items: Sequence[int]) -> None:
        """Remember a recommendation for the user's next clicks.

        Args:
            user: the user's key.
            source_offset: offset of the newest click that it answers.
            items: item ids, best first.
        """
        self._remember(user)
        newest = self._newest.setdefault(user, [])
        newest.append((source_offset, frozenset(items[: self.cutoff])))
        del newest[:-2]

    def rates(self) -> tuple[float, float]:
        """Return the hit rates of the recommendations and of the baseline; both are 0 without judged clicks."""
        judged = max(1, self.judged)
        return self.hits / judged, self.popular_hits / judged

    def _remember(self, user: bytes) -> set[int]:
        """Return the popular items that the user has clicked; with too many users, forget the most silent one."""
        clicked = self._clicked.setdefault(user, set())
        if self._max_users is not None:
            self._clicked.move_to_end(user)
            if len(self._clicked) > self._max_users:
                forgotten, _ = self._clicked.popitem(last=False)
                self._newest.pop(forgotten, None)
        return clicked

    def _most_popular(self, clicked: Collection[int]) -> set[int]:
        best: set[int] = set()
        for item in self._popular:
            if item not in clicked:
                best.add(item)
                if len(best) == self.cutoff:
                    break
        return best
