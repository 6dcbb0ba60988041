"""Counts, rates, latencies and hit rate of the demo's clicks and recommendations, updated as they arrive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streams.messages.clicks import Click
from streams.messages.recommendations import Recommendation
from streams.recall.hit_rate import OnlineHitRate

#: Seconds over which the shown rates are taken.
_RATE_WINDOW_S = 5.0


@dataclass(slots=True)
class UserStory:
    """The user whose clicks and recommendations the demo shows.

    Attributes:
        key: the user's key.
        clicks: item ids of the last clicks.
        recommended, recommended_before: item ids of the newest recommendation and of the one before it, best first.
    """

    key: bytes
    clicks: deque[int] = field(default_factory=lambda: deque(maxlen=6))
    recommended: list[int] = field(default_factory=list)
    recommended_before: list[int] = field(default_factory=list)


@dataclass(slots=True)
class NewItemTimes:
    """Times until newly published items were found and recommended.

    Attributes:
        searchable_s: seconds from the publication of each item until a search found it.
        first_recommended_s: item id → seconds from its publication to its first recommendation.
    """

    searchable_s: list[float] = field(default_factory=list)
    first_recommended_s: dict[int, float] = field(default_factory=dict)
    _published_at: dict[int, float] = field(default_factory=dict)

    def add_published(self, item: int, at: float) -> None:
        """Count an item from its publication `at`, in seconds since 1970."""
        self._published_at[item] = at

    def add_recommendation(self, items: Sequence[int], written: float) -> None:
        """Look for new items in a recommendation that Kafka received at `written`, in seconds since 1970."""
        for item in self._published_at.keys() & set(items):
            self.first_recommended_s.setdefault(item, written - self._published_at[item])


class RecentRates:
    """Clicks and recommendations per second, over the last seconds.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: deque[tuple[float, int, int]] = deque()  # seconds since 1970, clicks, recommendations

    def add(self, clicks: int = 0, recommendations: int = 0) -> None:
        self._events.append((self._clock(), clicks, recommendations))

    def per_second(self) -> tuple[float, float]:
        """Return clicks/s and recommendations/s."""
        now = self._clock()
        while self._events and self._events[0][0] < now - _RATE_WINDOW_S:
            self._events.popleft()
        if not self._events:
            return 0.0, 0.0
        span = max(1.0, min(_RATE_WINDOW_S, now - self._events[0][0]))
        return sum(c for _, c, _ in self._events) / span, sum(r for _, _, r in self._events) / span


class Scoreboard:
    """The counts and measurements that the demo shows and sums up.

    Args:
        popular: item ids, the most clicked in training first.
        story: key of the user whose story is shown.
        clock: seconds since 1970.

    Attributes:
        clicks, recommendations, dead_letters: messages so far.
        latencies_s: seconds from each answered click to its recommendation.
    """

    def __init__(self, popular: Sequence[int], story: bytes, clock: Callable[[], float] = time.time) -> None:
        self.clicks = self.recommendations = self.dead_letters = 0
        self.latencies_s: list[float] = []
        self.hit_rate = OnlineHitRate(popular)
        self.recent = RecentRates(clock)
        self.new_items = NewItemTimes()
        self.story = UserStory(story)

    def add_click(self, key: bytes, offset: int, click: Click) -> None:
        """Count a click that is stored at this offset of its partition."""
        self.clicks += 1
        self.recent.add(clicks=1)
        self.hit_rate.add_click(key, offset, click.item_id)
        if key == self.story.key:
            self.story.clicks.append(click.item_id)

    def add_recommendation(self, key: bytes, recommendation: Recommendation, written: float) -> None:
        """Count a recommendation that Kafka received at `written`, in seconds since 1970."""
        self.recommendations += 1
        self.recent.add(recommendations=1)
        self.latencies_s.append(max(0.0, written - recommendation.click_ts))
        items = list(recommendation.item_ids)
        self.hit_rate.add_recommendation(key, recommendation.source_offset, items)
        self.new_items.add_recommendation(items, written)
        if key == self.story.key:
            self.story.recommended_before, self.story.recommended = self.story.recommended, items


def percentile(seconds: Sequence[float], q: float) -> str:
    """Return a percentile in milliseconds, with its unit; a dash without values."""
    return f"{1000 * np.percentile(seconds, q):.0f} ms" if seconds else "–"
