"""Latency from the broker's receipt of a click to its receipt of the recommendation, below the sustained rate.

The sustained rate is measured first, with backlogs in rounds (`benchmarks.harness.data`), so that every click is
searched for. The second backlog counts, when caches are full and Kafka's code is compiled. Then clicks are sent on an
open schedule: each has its scheduled time, however long the clicks before it take, so that a stall counts for all
clicks that it delays. The broker may receive a click after its scheduled time, above all the first ones, while the
producer starts: "moment → recommendation" includes that. The answer to a click is the first recommendation that takes
it into account.

For comparison, single searches are measured on the idle Milvus: for one user, beside single clicks on an idle system;
for a full batch; and for as many users as a batch has on average at half the sustained rate, beside that rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from benchmarks.harness.answers import Phase, Recorder
from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop
from benchmarks.harness.report import Curve, Figure, percentiles
from benchmarks.harness.searches import search_seconds
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import BenchmarkSite, benchmark_site
from benchmarks.harness.usage import batch_counts
from embedded.program import WorkerProgram
from model.arrays import DoubleArray
from producers.click_log import ClickLog

#: Rates of the clicks, in percent of the sustained rate.
_PARTS = (10, 50, 80)
#: Clicks/s on an idle system: so few that each is answered before the next one comes.
_IDLE_RATE = 2.0


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.from_sizes(servers.folder / "latency", sizes)
    with servers.index(shop.artifact), sustained(servers, shop, sizes, "clicks") as steady:

        def search(users: int) -> list[float]:
            return search_seconds(servers, steady.site, shop, users)

        single, full = search(1), search(sizes["batch"])
        runs = [_run_paced(servers, steady, "idle", _IDLE_RATE, sizes["seconds"])]
        for part in _PARTS:
            runs.append(_run_paced(servers, steady, f"at {part} %", steady.rate * part / 100, sizes["seconds"]))
        idle, half = runs[0], runs[1 + _PARTS.index(50)]
        users = max(1, round(half.mean_batch))
        same_size = search(users)
    searches = {f"{users} users": same_size, f"a batch of {sizes['batch']}": full}
    return [
        Figure("sustained", steady.rate, "clicks/s"),
        *(
            f
            for n, taken in ((1, single), (users, same_size), (sizes["batch"], full))
            for f in _search_figures(n, taken)
        ),
        *(figure for paced in runs for figure in paced.figures()),
        *(Figure(f"idle, p{q}, beyond one search", 1000 * _excess_s(idle.delays, single, q), "ms") for q in (50, 99)),
        *(
            Figure(f"at 50 %, p{q} / one search for {what}", np.percentile(half.delays, q) / np.median(taken), "×")
            for what, taken in searches.items()
            for q in (50, 99)
        ),
        *(_curve(q, runs) for q in (50, 95, 99)),
    ]


class PacedRun(NamedTuple):
    """Clicks at one rate.

    Attributes:
        name: name of the rate in figures.
        rate: clicks/s.
        delays: (n,) seconds from each click to its answer.
        lateness: (n,) seconds by which each click came after its scheduled time.
        mean_batch: mean number of clicks in a batch.
    """

    name: str
    rate: float
    delays: DoubleArray
    lateness: DoubleArray
    mean_batch: float

    def figures(self) -> list[Figure]:
        quantiles = (50, 95, 99, 100)
        return [
            *percentiles(f"click → recommendation {self.name}", self.delays.tolist(), quantiles),
            *percentiles(f"moment → recommendation {self.name}", (self.delays + self.lateness).tolist(), quantiles),
            *percentiles(f"click behind its moment {self.name}", self.lateness.tolist(), (99,)),
            Figure(f"clicks in a batch {self.name}, mean", self.mean_batch, "clicks"),
        ]


def _run_paced(servers: BenchmarkServers, steady: SustainedWorker, name: str, rate: float, seconds: int) -> PacedRun:
    servers.report(f"Sending {rate:.1f} clicks/s for {seconds} s")
    before = batch_counts(steady.worker)
    steady.site.send_clicks(steady.log, limit=max(1, round(rate * seconds)), rate=rate)
    steady.site.await_commits(steady.worker)
    batches, clicks = np.subtract(batch_counts(steady.worker), before)
    phase = steady.recorder.phase()
    return PacedRun(name, rate, phase.delays(), phase.lateness(rate), float(clicks / batches))


def _search_figures(users: int, seconds: list[float]) -> list[Figure]:
    return percentiles(f"one search on idle Milvus, users {users}", seconds, (50, 99))


def _excess_s(delays: DoubleArray, search: list[float], quantile: int) -> float:
    """Return the seconds by which a percentile exceeds the median search; 0 if it does not."""
    return max(0.0, float(np.percentile(delays, quantile) - np.median(search)))


def _curve(quantile: int, runs: Sequence[PacedRun]) -> Curve:
    values = [1000 * float(np.percentile(paced.delays, quantile)) for paced in runs]
    return Curve(f"p{quantile}", "clicks/s", "ms", [paced.rate for paced in runs], values)


class SustainedWorker(NamedTuple):
    """A worker with its sustained rate.

    Attributes:
        log: clicks to send.
        rate: clicks/s at which it answers a backlog.
        recorder: separates the phases that follow.
    """

    site: BenchmarkSite
    worker: WorkerProgram
    log: ClickLog
    rate: float
    recorder: Recorder


@contextmanager
def sustained(servers: BenchmarkServers, shop: Shop, sizes: Sizes, agents: str) -> Iterator[SustainedWorker]:
    """Measure the sustained rate of a worker with these agents, and keep the worker running for the block."""
    traffic = shop.rounds()
    log = traffic.clicks()
    with benchmark_site(
        servers, "steady", shop.artifact, {"batch.size": sizes["batch"], "milvus.timeout": 60.0}
    ) as site:
        site.write_histories(traffic)
        recorder = Recorder(site)
        with site.worker("--agents", agents) as worker:
            rate = sustained_rate(site, worker, recorder, log, sizes["clicks"])
            yield SustainedWorker(site, worker, log, rate, recorder)


def sustained_rate(site: BenchmarkSite, worker: WorkerProgram, recorder: Recorder, log: ClickLog, clicks: int) -> float:
    """Return the clicks/s at which a worker answers the second of two backlogs of `clicks` clicks."""
    answer_backlog(site, [worker], recorder, log, clicks)
    return answer_backlog(site, [worker], recorder, log, clicks).rate()


def answer_backlog(
    site: BenchmarkSite, workers: Sequence[WorkerProgram], recorder: Recorder, log: ClickLog, clicks: int
) -> Phase:
    """Send `clicks` clicks at full speed, and wait until the workers have answered them."""
    site.send_clicks(log, limit=clicks)
    for worker in workers:
        site.await_commits(worker)
    return recorder.phase()


SHARED = {"dim": 64}
STANDALONE = {"items": 367_983, "users": 200_000, "clicks": 20_000, "batch": 256} | SHARED
#: milvus-lite is Python and answers some hundred queries/s: small batches keep the answers coming.
LITE = {"items": 2_000, "users": 200, "clicks": 500, "batch": 4} | SHARED
BENCHMARK = Benchmark(
    run,
    {"standalone": STANDALONE | {"seconds": 60}, "lite": LITE | {"seconds": 20}},
    kafka=True,
    milvus=True,
    curves=True,
)
