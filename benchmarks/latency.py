"""From the broker's receipt of a click to its receipt of the recommendation, at parts of what one worker sustains.

What it sustains is measured first, with a backlog in rounds (`benchmarks.data`): every click is searched for. Then
clicks come in an open schedule: each has its moment, however long those before it take, so a stall counts for all
clicks that meet it. By how much the broker got them after their moment is reported, too. A click's answer is the first
recommendation that takes it into account.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import Shop
from benchmarks.report import Figure, percentiles
from benchmarks.stage import Site, Stage, Worker
from benchmarks.stream import Recorder
from producers.clicks import ClickLog

#: Parts of the sustained rate, in percent.
_PARTS = (10, 50, 80)


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure]:
    shop = Shop.of(stage.folder / "latency", sizes)
    figures = []
    with stage.index(shop.artifact), sustained(stage, shop, sizes, "clicks") as steady:
        figures.append(Figure("sustained", steady.rate, "clicks/s"))
        for part in _PARTS:
            rate = steady.rate * part / 100
            stage.report(f"Sending {rate:.1f} clicks/s for {sizes['seconds']} s")
            steady.site.send(steady.log, limit=max(1, round(rate * sizes["seconds"])), rate=rate)
            steady.site.await_answers(steady.worker)
            phase = steady.recorder.phase()
            figures += percentiles(f"click → recommendation at {part} %", phase.delays().tolist(), (50, 95, 99, 100))
            figures += percentiles(f"click behind its moment at {part} %", phase.lateness(rate).tolist(), (99,))
    return figures


class Steady(NamedTuple):
    """A worker that has answered a backlog at `rate` clicks/s, with what comes next: clicks to send, and a recorder."""

    site: Site
    worker: Worker
    log: ClickLog
    rate: float
    recorder: Recorder


@contextmanager
def sustained(stage: Stage, shop: Shop, sizes: Sizes, agents: str) -> Iterator[Steady]:
    """Have a worker with these agents answer a backlog of clicks in rounds, and keep it."""
    traffic = shop.rounds()
    log = traffic.clicks()
    with stage.site("steady", shop.artifact, {"batch.size": sizes["batch"], "milvus.timeout": 60.0}) as site:
        site.remember(traffic)
        site.send(log, limit=sizes["clicks"])
        recorder = Recorder(site)
        with site.worker(agents) as worker:
            site.await_answers(worker)
            yield Steady(site, worker, log, recorder.phase().rate(), recorder)


SHARED = {"dim": 64}
STANDALONE = {"items": 367_983, "users": 200_000, "clicks": 20_000, "batch": 256} | SHARED
#: milvus-lite is Python and answers some hundred queries a second: small batches keep the answers coming.
LITE = {"items": 2_000, "users": 200, "clicks": 500, "batch": 4} | SHARED
BENCHMARK = Benchmark(run, {"standalone": STANDALONE | {"seconds": 60}, "lite": LITE | {"seconds": 20}}, True, True)
