"""Throughput of one worker with a backlog, beside three yardsticks on the same machine, one after the other.

All clicks are on the topic before the worker starts; the rate is that of the middle 80 % of them, by the broker's
clock. "In rounds", no user clicks again before all have clicked, so that every click is searched for; "in sessions",
clicks are in the order of time, and one recommendation answers all clicks of a user in a batch ("coalesced"). Users
have earlier histories, which the worker restores from the changelog at its start.

limit       the same searches sent to Milvus directly: as many queries per request, the same `limit` and ef, nothing
            else; measured before and after the worker, the higher rate counts
baseline    the usual hand-written design (`benchmarks.yardsticks.hand_wired`), with clients that wait for their answers
engine      the worker with an index that answers instantly (`benchmarks.yardsticks.instant_index`), beside Faust agents
            that do nothing, or a table write and a send for each click (`benchmarks.yardsticks.plain_faust`), on the
            same clicks
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.answers import Phase, Recorder
from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop, Traffic
from benchmarks.harness.report import Curve, Figure, percentiles
from benchmarks.harness.searches import interests, open_index
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import BenchmarkSite, benchmark_site
from benchmarks.harness.usage import cpu_seconds, stage_seconds
from benchmarks.yardsticks.services import hand_wired
from embedded.deployment import WORKER
from embedded.program import WorkerProgram

#: Concurrent clients of the baseline, and users per request.
_CLIENTS, _USERS = (1, 8, 32), (1, 16)
#: Requests in flight when Milvus is searched directly: one, and enough that it never waits for the next.
_IN_FLIGHT = (1, 2)
#: Histories that are searched for directly and sent to the baseline.
_HISTORIES = 4096


@dataclass(frozen=True, slots=True)
class BacklogRun:
    """The measurements of one backlog.

    The stages follow each other in one thread. "search" is the time that a batch waits for Milvus while nothing else is
    left to do; the next batch has been started by then. "other" is the rest of the time: waiting for clicks, forming
    batches. The time is that of the rate, without the worker's first and last seconds.

    Attributes:
        phase: clicks and answers.
        cpu: process → CPU seconds.
        stages: stage (`streams.metrics.STAGES`) → seconds.
    """

    phase: Phase
    cpu: dict[str, float]
    stages: dict[str, float]

    def figures(self, name: str) -> list[Figure]:
        n, cores = len(self.phase.clicks), os.cpu_count() or 1
        wall, cpu, in_stages = 1 / self.phase.rate(), sum(self.cpu.values()) / n, sum(self.stages.values()) / n
        return [
            Figure(f"{name}: clicks", self.phase.rate(), "clicks/s"),
            Figure(f"{name}: recommendations", self.phase.answer_rate(), "recommendations/s"),
            Figure(f"{name}: coalesced", 100 * self.phase.coalesced_share(), "% of clicks"),
            *(Figure(f"{name}: CPU of {who}", 1000 * s / n, "s / 1,000 clicks") for who, s in self.cpu.items()),
            *(
                Figure(f"{name}: time for {stage}", 1000 * s / n, "s / 1,000 clicks")
                for stage, s in self.stages.items()
            ),
            Figure(f"{name}: time for all stages", 1000 * in_stages, "s / 1,000 clicks"),
            Figure(f"{name}: time for other", 1000 * max(0.0, wall - in_stages), "s / 1,000 clicks"),
            Figure(f"{name}: time", 1000 * wall, "s / 1,000 clicks"),
            Figure(f"{name}: waiting for the search", 100 * self.stages["search"] / n / wall, "% of the time"),
            Figure(f"{name}: CPU of all", 1000 * cpu, "s / 1,000 clicks"),
            Figure(f"{name}: CPU of all, of {cores} cores", 100 * cpu / (cores * wall), "%"),
        ]

    def curve(self, name: str) -> Curve:
        seconds, clicks = self.phase.progress()
        return Curve(name, "seconds", "clicks answered", seconds.tolist(), clicks.tolist())


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.from_sizes(servers.folder / "throughput", sizes)
    settings = {"batch.size": sizes["batch"], "milvus.timeout": 60.0}
    rounds, sessions = shop.rounds(), shop.sessions()
    with servers.index(shop.artifact):
        with benchmark_site(servers, "rounds", shop.artifact, settings) as site:
            before = _limit(servers, site, shop, rounds, sizes)
            worker = _answer_backlog(servers, site, rounds, sizes["clicks"])
            after = _limit(servers, site, shop, rounds, sizes)
            limit = {n: max(before[n], after[n]) for n in _IN_FLIGHT}
            baseline_figures, baseline = _baseline(servers, site, shop, rounds, sizes)
        with benchmark_site(servers, "sessions", shop.artifact, settings) as site:
            coalescing = _answer_backlog(servers, site, sessions, sizes["clicks"])
    with benchmark_site(servers, "engine", shop.artifact, settings) as site:
        engine = _answer_backlog(
            servers, site, rounds, sizes["clicks"], program=["benchmarks.yardsticks.instant_index", "worker"]
        )
        faust = {
            kind: _plain_faust(servers, site, kind, min(sizes["faust"], sizes["clicks"])) for kind in ("empty", "table")
        }
    users = worker.phase.answer_rate()
    best = {u: max(baseline[clients, u] for clients in _CLIENTS) for u in _USERS}
    return [
        *worker.figures("in rounds"),
        *coalescing.figures("in sessions"),
        *(Figure(f"limit, {n} in flight", rate, "users/s") for n, rate in limit.items()),
        *baseline_figures,
        *engine.figures("engine"),
        *(Figure(f"Faust, {kind} agent: clicks", rate, "clicks/s") for kind, (rate, _) in faust.items()),
        *(Figure(f"Faust, {kind} agent: CPU", 1000 * cpu, "s / 1,000 clicks") for kind, (_, cpu) in faust.items()),
        *(Figure(f"worker in rounds / limit, {n} in flight", users / rate, "×") for n, rate in limit.items()),
        Figure("worker in rounds / baseline, 1 × 1", users / baseline[1, 1], "×"),
        *(Figure(f"worker in rounds / best of baseline, {u} a request", users / r, "×") for u, r in best.items()),
        *(
            Figure(f"worker in sessions / best of baseline, {u} a request", coalescing.phase.rate() / r, "×")
            for u, r in best.items()
        ),
        *(Figure(f"engine / Faust, {k} agent", engine.phase.rate() / rate, "×") for k, (rate, _) in faust.items()),
        worker.curve("in rounds"),
        coalescing.curve("in sessions"),
        engine.curve("engine"),
        *(
            Curve(f"baseline, {u} a request", "clients", "users/s", _CLIENTS, [baseline[c, u] for c in _CLIENTS])
            for u in _USERS
        ),
    ]


def _answer_backlog(
    servers: BenchmarkServers, site: BenchmarkSite, traffic: Traffic, clicks: int, program: Sequence[str] = WORKER
) -> BacklogRun:
    """Send a backlog of clicks, run a worker until it has answered them, and return its measurements."""
    servers.report(f"Sending {clicks:,} clicks")
    site.write_histories(traffic)
    site.send_clicks(traffic.clicks(), limit=clicks)
    servers.report("Starting a worker")
    worker = site.start_worker("--agents", "clicks", program=program)
    try:
        worker.await_restored()  # not until it is ready: it answers clicks before that, whose CPU time counts
        before = _cpu(servers, worker)
        site.await_commits(worker)
        cpu = {name: used - before[name] for name, used in _cpu(servers, worker).items()}
        stages = stage_seconds(worker)
    finally:
        worker.stop()
    return BacklogRun(Recorder(site).phase(), cpu, stages)


def _cpu(servers: BenchmarkServers, worker: WorkerProgram) -> dict[str, float]:
    """Return process → CPU seconds so far."""
    return {"the worker": cpu_seconds(worker.pid), "the benchmark": time.process_time()} | servers.server_cpu()


def _limit(
    servers: BenchmarkServers, site: BenchmarkSite, shop: Shop, traffic: Traffic, sizes: Sizes
) -> dict[int, float]:
    """Return requests in flight → users/s for which Milvus answers searches; the requests are like the worker's."""
    servers.report("Searching Milvus directly")
    config, dim = site.config, shop.artifact.dim
    vectors = interests(shop, traffic, _HISTORIES)  # (U, 4, D)
    B, limit = config.batch.size, config.recall.top_k + config.history.length
    batches = np.split(vectors, range(B, len(vectors), B))
    rates = {}
    with open_index(servers, shop) as milvus:
        for in_flight in _IN_FLIGHT:
            begin = time.monotonic()

            def search(first: int, step: int = in_flight, begin: float = begin) -> int:
                users = 0
                for number in range(first, 10**9, step):
                    if time.monotonic() - begin >= sizes["seconds"]:
                        break
                    batch = batches[number % len(batches)]
                    milvus.search(batch.reshape(-1, dim), limit)
                    users += len(batch)
                return users

            with ThreadPoolExecutor(in_flight) as threads:
                answered = sum(threads.map(search, range(in_flight)))
            rates[in_flight] = answered / (time.monotonic() - begin)
    return rates


def _baseline(
    servers: BenchmarkServers, site: BenchmarkSite, shop: Shop, traffic: Traffic, sizes: Sizes
) -> tuple[list[Figure], dict[tuple[int, int], float]]:
    """Return figures of the baseline, and (clients, users per request) → users/s."""
    histories = traffic.histories(_HISTORIES, shop.artifact.history_length, np.random.default_rng(0))
    figures, rates = [], {}
    with hand_wired(site, shop) as service:
        for users in _USERS:
            for clients in _CLIENTS:
                servers.report(f"Sending requests to the baseline: {clients} clients, {users} users per request")
                found = service.send_requests(histories, clients=clients, users=users, seconds=sizes["seconds"])
                rates[clients, users] = found.rate
                name = f"baseline, {clients} × {users}"
                cpu = 1000 * found.cpu["the service"] / (users * len(found.seconds))
                figures.append(Figure(f"{name}: users", found.rate, "users/s"))
                figures.append(Figure(f"{name}: CPU of the service", cpu, "s / 1,000 users"))
                figures += percentiles(f"{name}: request", found.seconds, (50, 99))
    return figures, rates


def _plain_faust(servers: BenchmarkServers, site: BenchmarkSite, kind: str, clicks: int) -> tuple[float, float]:
    """Return clicks/s, and CPU seconds per click."""
    servers.report(f"Reading the clicks with plain Faust: {kind}")
    broker, topics = site.config.kafka.bootstrap_servers, site.config.topics
    arguments = [kind, broker, topics.clicks, str(topics.partitions), str(clicks), str(site.data_dir(kind))]
    with site.program("benchmarks.yardsticks.plain_faust", *arguments, name=kind) as program:
        found = json.loads(program.await_success().splitlines()[-1])
    return found["rate"], found["cpu"]


_SHARED = {"dim": 64, "seconds": 10}
BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"items": 367_983, "users": 200_000, "clicks": 1_000_000, "faust": 100_000, "batch": 256}
        | _SHARED,
        # milvus-lite is Python and answers some hundred queries/s: small batches keep the answers coming.
        "lite": {"items": 2_000, "users": 200, "clicks": 1_000, "faust": 1_000, "batch": 4} | _SHARED,
    },
    kafka=True,
    milvus=True,
    curves=True,
)
