"""What the demo measures: pure bookkeeping over clicks and recommendations as they arrive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from streams.messages.clicks import Click
from streams.messages.recommendations import Recommendation

#: Recommendations compared with a click: those that a page could have shown. The field's usual cut.
CUT = 50
#: Seconds over which the shown rates are taken.
_RATE_WINDOW = 5.0


@dataclass(slots=True)
class UserStory:
    """The user whose clicks and recommendations the demo shows."""

    key: bytes
    clicks: deque[int] = field(default_factory=lambda: deque(maxlen=6))
    now: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)


class Scoreboard:
    """Counts, latencies and the online hit rate.

    A click is a hit when its item was among the first `CUT` of the user's newest recommendation made *before* the
    click; only clicks of users who had one count. The baseline recommends to everybody the most clicked items of
    training that the user has not clicked yet, and is judged on the same clicks.

    Args:
        popular: item ids by falling number of clicks in training.
        story: key of the user whose story is shown.
        clock: seconds since 1970.
    """

    def __init__(self, popular: Sequence[int], story: bytes, clock: Callable[[], float] = time.time) -> None:
        self._popular = popular
        self._clock = clock
        self._seen: dict[bytes, set[int]] = {}
        self._newest: dict[bytes, list[tuple[int, frozenset[int]]]] = {}  # the last two: (source offset, items)
        self._recent: deque[tuple[float, int, int]] = deque()  # time, clicks, recommendations
        self._published: dict[int, float] = {}
        self.clicks = self.recommendations = self.dead_letters = 0
        self.judged = self.hits = self.popular_hits = 0
        self.latencies: list[float] = []  # seconds, click to recommendation
        self.searchable: list[float] = []  # seconds, published to found by a search
        self.first_recommended: dict[int, float] = {}  # new item → seconds from publication to a recommendation
        self.story = UserStory(story)

    def click(self, key: bytes, offset: int, click: Click) -> None:
        """A click as Kafka holds it."""
        self.clicks += 1
        self._recent.append((self._clock(), 1, 0))
        seen = self._seen.setdefault(key, set())
        # The topics are read side by side: the answer to this very click may have arrived before the click.
        before = [items for source, items in self._newest.get(key, []) if source < offset]
        if before:
            self.judged += 1
            self.hits += click.item_id in before[-1]
            self.popular_hits += click.item_id in self._most_popular(seen)
        seen.add(click.item_id)
        if key == self.story.key:
            self.story.clicks.append(click.item_id)

    def recommendation(self, key: bytes, recommendation: Recommendation, written: float) -> None:
        """A recommendation and when it was written to Kafka, in seconds since 1970."""
        self.recommendations += 1
        self._recent.append((self._clock(), 0, 1))
        self.latencies.append(max(0.0, written - recommendation.click_ts))
        answers = self._newest.setdefault(key, [])
        answers.append((recommendation.source_offset, frozenset(recommendation.item_ids[:CUT])))
        del answers[:-2]
        for item in self._published.keys() & set(recommendation.item_ids):
            self.first_recommended.setdefault(item, written - self._published[item])
        if key == self.story.key:
            self.story.before, self.story.now = self.story.now, list(recommendation.item_ids)

    def published(self, item: int, at: float) -> None:
        """A new item was published at a time in seconds since 1970."""
        self._published[item] = at

    def rates(self) -> tuple[float, float]:
        """Clicks and recommendations a second, over the last seconds."""
        now = self._clock()
        while self._recent and self._recent[0][0] < now - _RATE_WINDOW:
            self._recent.popleft()
        if not self._recent:
            return 0.0, 0.0
        span = max(1.0, min(_RATE_WINDOW, now - self._recent[0][0]))
        return sum(c for _, c, _ in self._recent) / span, sum(r for _, _, r in self._recent) / span

    def hit_rates(self) -> tuple[float, float]:
        """Share of judged clicks that were recommended before: by the worker, and by popularity."""
        judged = max(1, self.judged)
        return self.hits / judged, self.popular_hits / judged

    def _most_popular(self, seen: Collection[int]) -> set[int]:
        best: set[int] = set()
        for item in self._popular:
            if item not in seen:
                best.add(item)
                if len(best) == CUT:
                    break
        return best


def percentile(seconds: Sequence[float], q: float) -> str:
    """A percentile in milliseconds, with its unit; a dash without values."""
    return f"{1000 * np.percentile(seconds, q):.0f} ms" if seconds else "–"
