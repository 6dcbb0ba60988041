"""The page's figures of the stream: rates, latency and hit rate, from the messages that arrive; bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.arrays import DoubleArray
from streams.messages.clicks import Click
from streams.messages.recommendations import Recommendation
from streams.recall.hit_rate import OnlineHitRate

#: Seconds over which rates are taken, and after which there is one; seconds of the latencies.
RATE_WINDOW_S, FIRST_RATE_S, LATENCY_WINDOW_S = 10, 2.0, 60
#: Clicks whose times, and users whose hit rates are remembered; users shown as active.
MAX_CLICKS, MAX_USERS, MAX_ACTIVE = 100_000, 20_000, 12
#: Upper bounds of the latency histogram's buckets in seconds: from 0.5 ms to a day, each 5 % above the one before.
_BOUNDS: DoubleArray = 0.0005 * np.power(1.05, np.arange(390, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a click's time in Kafka to that of its recommendation, over the last minute, exact to 5 %."""

    p50_s: float
    p99_s: float
    count: int


@dataclass(frozen=True, slots=True)
class HitRate:
    """Share of `judged` clicks whose item had been recommended to the user, and that of the most popular items."""

    ours: float
    popular: float
    judged: int
    cutoff: int


@dataclass(frozen=True, slots=True)
class Figures:
    """A snapshot. None = not known: nothing was measured, or not for long enough.

    Attributes:
        followed_s: seconds since the first message could be seen.
        clicks_per_s, recommendations_per_s: over the last seconds.
        latency, hit_rate: the latter since the stream is followed.
        active: users whose clicks arrived last, the newest first.
    """

    followed_s: float
    clicks_per_s: float | None
    recommendations_per_s: float | None
    latency: Latency | None
    hit_rate: HitRate | None
    active: Sequence[str]


class StreamFigures:
    """Counts the clicks and recommendations of the stream. Not thread-safe.

    Args:
        popular: item ids, the most clicked in training first.
        clock: monotonic seconds.
    """

    def __init__(self, popular: Sequence[int], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._rates = _Seconds(RATE_WINDOW_S, 2)
        self._latencies = _Seconds(LATENCY_WINDOW_S, len(_BOUNDS) + 1)
        self._hits = OnlineHitRate(popular, max_users=MAX_USERS)
        self._clicked_at: OrderedDict[tuple[int, int], float] = OrderedDict()
        self._answered_at: OrderedDict[tuple[int, int], float] = OrderedDict()
        self._active: OrderedDict[str, None] = OrderedDict()

    def add_click(self, key: bytes, partition: int, offset: int, click: Click, written: float) -> float | None:
        """Count a click that Kafka received at `written`, in seconds since 1970; return its latency, if known."""
        self._rates.add(self._clock(), 0)
        self._hits.add_click(key, offset, click.item_id)
        user = str(click.user_id)
        self._active[user] = None
        self._active.move_to_end(user)
        _forget(self._active, MAX_ACTIVE)
        self._clicked_at[partition, offset] = written
        _forget(self._clicked_at, MAX_CLICKS)
        # The topics are read side by side: the answer may have arrived first.
        return self._measure((partition, offset))

    def add_recommendation(self, key: bytes, recommendation: Recommendation, written: float) -> float | None:
        """Count a recommendation that Kafka received at `written`; return its latency in seconds, if known."""
        self._rates.add(self._clock(), 1)
        self._hits.add_recommendation(key, recommendation.source_offset, list(recommendation.item_ids))
        source = recommendation.source_partition, recommendation.source_offset
        self._answered_at[source] = written
        _forget(self._answered_at, MAX_CLICKS)
        return self._measure(source)

    def snapshot(self, now: float) -> Figures:
        """Return the figures at `now`, the second of the clock up to which all messages are known.

        While Kafka says nothing, this does not move, and rates do not fall to zero: they are not known.
        """
        followed = now - self._since
        rates = self._rates.sums(now) / min(float(RATE_WINDOW_S), max(followed, FIRST_RATE_S))
        known = followed >= FIRST_RATE_S
        ours, popular = self._hits.rates()
        judged = self._hits.judged
        return Figures(
            followed_s=followed,
            clicks_per_s=float(rates[0]) if known else None,
            recommendations_per_s=float(rates[1]) if known else None,
            latency=_latency(self._latencies.sums(now)),
            hit_rate=HitRate(ours, popular, judged, self._hits.cutoff) if judged else None,
            active=list(reversed(self._active)),
        )

    def _measure(self, source: tuple[int, int]) -> float | None:
        """Measure the latency of a click whose recommendation has arrived, too; once, because answers may repeat."""
        if source not in self._clicked_at or source not in self._answered_at:
            return None
        seconds = max(0.0, self._answered_at.pop(source) - self._clicked_at.pop(source))
        self._latencies.add(self._clock(), int(np.searchsorted(_BOUNDS, seconds)))
        return seconds


class _Seconds:
    """Counts events of some kinds in each of the last seconds."""

    def __init__(self, seconds: int, kinds: int) -> None:
        self._counts = np.zeros((seconds, kinds), np.int64)
        self._second = 0

    def add(self, now: float, kind: int) -> None:
        self._move(now)
        self._counts[self._second % len(self._counts), kind] += 1

    def sums(self, now: float) -> DoubleArray:
        """Return the number of events of each kind, (kinds,)."""
        self._move(now)
        sums: DoubleArray = self._counts.sum(axis=0).astype(np.float64)
        return sums

    def _move(self, now: float) -> None:
        for second in range(max(self._second + 1, int(now) - len(self._counts) + 1), int(now) + 1):
            self._counts[second % len(self._counts)] = 0
        self._second = max(self._second, int(now))


def _latency(counts: DoubleArray) -> Latency | None:
    """Return the percentiles of a histogram with the buckets `_BOUNDS`."""
    total = int(counts.sum())
    if not total:
        return None
    reached = np.cumsum(counts) / total
    p50, p99 = (float(_BOUNDS[min(int(np.searchsorted(reached, q)), len(_BOUNDS) - 1)]) for q in (0.5, 0.99))
    return Latency(p50, p99, total)


def _forget(entries: OrderedDict[Any, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
