"""From the broker's receipt of a click to its receipt of the recommendation, at parts of what one worker sustains.

What it sustains is measured first, with backlogs in rounds (`benchmarks.data`): every click is searched for. The second
one counts, when caches are full and Kafka's code is compiled. Then clicks come in an open schedule: each has its
moment, however long those before it take, so a stall counts for all clicks that meet it. By how much the broker got
them after their moment is reported, too. A click's answer is the first recommendation that takes it into account.

Two searches alone, on the idle Milvus, stand beside it: for one user, to compare with single clicks on an idle system,
and for a full batch, to compare with half the sustained rate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import Shop
from benchmarks.report import Figure, percentiles
from benchmarks.searches import index, interests
from benchmarks.stage import Site, Stage, Worker
from benchmarks.stream import Recorder
from producers.clicks import ClickLog

#: Parts of the sustained rate, in percent.
_PARTS = (10, 50, 80)
#: Clicks a second of which none meets another.
_IDLE = 2.0
#: Searches alone, of each size.
_SEARCHES = 20


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure]:
    shop = Shop.of(stage.folder / "latency", sizes)
    figures = []
    with stage.index(shop.artifact), sustained(stage, shop, sizes, "clicks") as steady:
        figures.append(Figure("sustained", steady.rate, "clicks/s"))
        searches = {users: _search(stage, steady.site, shop, users) for users in (1, sizes["batch"])}
        for users, seconds in searches.items():
            figures += percentiles(f"one search alone, users {users}", seconds, (50, 99))
        answered: dict[str, list[float]] = {}
        parts = [(f"at {part} %", steady.rate * part / 100) for part in _PARTS]
        for name, rate in [("idle", _IDLE), *parts]:
            stage.report(f"Sending {rate:.1f} clicks/s for {sizes['seconds']} s")
            steady.site.send(steady.log, limit=max(1, round(rate * sizes["seconds"])), rate=rate)
            steady.site.await_answers(steady.worker)
            phase = steady.recorder.phase()
            answered[name] = phase.delays().tolist()
            figures += percentiles(f"click → recommendation {name}", answered[name], (50, 95, 99, 100))
            figures += percentiles(f"click behind its moment {name}", phase.lateness(rate).tolist(), (99,))
    one, batch = (float(np.median(seconds)) for seconds in searches.values())
    half = np.percentile(answered["at 50 %"], (50, 99))
    return [
        *figures,
        Figure("idle, p50, beyond one search", 1000 * (float(np.median(answered["idle"])) - one), "ms"),
        Figure("at 50 %, p50 / one search for a batch", float(half[0]) / batch, "×"),
        Figure("at 50 %, p99 / one search for a batch", float(half[1]) / batch, "×"),
    ]


def _search(stage: Stage, site: Site, shop: Shop, users: int) -> list[float]:
    """Seconds of searches for so many users, one after the other."""
    asked = interests(shop, shop.rounds(), users).reshape(-1, shop.artifact.dim)
    limit = site.config.recall.top_k + site.config.history.length
    taken = []
    with index(stage, shop) as milvus:
        for _ in range(_SEARCHES):
            begin = time.monotonic()
            milvus.search(asked, limit)
            taken.append(time.monotonic() - begin)
    return taken


class Steady(NamedTuple):
    """A worker that answers a backlog at `rate` clicks/s, with what comes next: clicks to send, and a recorder."""

    site: Site
    worker: Worker
    log: ClickLog
    rate: float
    recorder: Recorder


@contextmanager
def sustained(stage: Stage, shop: Shop, sizes: Sizes, agents: str) -> Iterator[Steady]:
    """Have a worker with these agents answer backlogs of clicks in rounds, and keep it."""
    traffic = shop.rounds()
    log = traffic.clicks()
    with stage.site("steady", shop.artifact, {"batch.size": sizes["batch"], "milvus.timeout": 60.0}) as site:
        site.remember(traffic)
        recorder = Recorder(site)
        with site.worker(agents) as worker:
            rate = warm_rate(site, worker, recorder, log, sizes["clicks"])
            yield Steady(site, worker, log, rate, recorder)


def warm_rate(site: Site, worker: Worker, recorder: Recorder, log: ClickLog, clicks: int) -> float:
    """Clicks/s at which a worker answers the second of two backlogs of so many clicks."""
    rate = 0.0
    for _ in range(2):
        site.send(log, limit=clicks)
        site.await_answers(worker)
        rate = recorder.phase().rate()
    return rate


SHARED = {"dim": 64}
STANDALONE = {"items": 367_983, "users": 200_000, "clicks": 20_000, "batch": 256} | SHARED
#: milvus-lite is Python and answers some hundred queries a second: small batches keep the answers coming.
LITE = {"items": 2_000, "users": 200, "clicks": 500, "batch": 4} | SHARED
BENCHMARK = Benchmark(run, {"standalone": STANDALONE | {"seconds": 60}, "lite": LITE | {"seconds": 20}}, True, True)
