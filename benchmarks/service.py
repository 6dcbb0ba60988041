"""Recommendations over HTTP: the recall service beside the hand-wired one, on the same Milvus, in turn.

Each client sends its next request when the one before is answered. Both services, Milvus, Kafka and the clients share
the machine. The single searches on the idle Milvus are those that one request of one client makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop
from benchmarks.harness.report import Curve, Figure, percentiles
from benchmarks.harness.searches import search_seconds
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import benchmark_site
from benchmarks.yardsticks.clients import RequestTimes
from benchmarks.yardsticks.services import hand_wired, recall_service

#: Concurrent clients, of which the size `most_clients` is the most, and users per request.
_CLIENTS, _USERS = (1, 8, 32, 128), (1, 16)
#: Histories that are sent.
_HISTORIES = 4096
#: Settings of the service: room for all users that the clients ask for, so that no request is refused.
_ROOM = (f"service.queue_users={max(_CLIENTS) * max(_USERS)}", "service.timeout=60")


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.from_sizes(servers.folder / "service", sizes)
    histories = shop.rounds().histories(_HISTORIES, shop.artifact.history_length, np.random.default_rng(0))
    runs = [(clients, users) for users, clients in product(_USERS, _CLIENTS) if clients <= sizes["most_clients"]]
    found: dict[tuple[str, int, int], RequestTimes] = {}
    with (
        servers.index(shop.artifact),
        benchmark_site(servers, "service", shop.artifact, {"milvus.timeout": 60.0}) as site,
        hand_wired(site, shop) as baseline,
        recall_service(site, *_ROOM) as service,
    ):
        search = search_seconds(servers, site, shop, users=1)
        for clients, users in runs:
            for name, asked in (("baseline", baseline), ("service", service)):
                servers.report(f"Sending requests to the {name}: {clients} clients, {users} users per request")
                found[name, clients, users] = asked.send_requests(
                    histories, clients=clients, users=users, seconds=sizes["seconds"], cpu=servers.server_cpu
                )
    return [
        *percentiles("one search on idle Milvus, users 1", search, (50, 99)),
        *(f for (name, c, u), times in found.items() for f in _figures(f"{name}, {c} × {u}", times)),
        Figure("service, 1 × 1, p50 beyond one search", 1000 * _excess_s(found["service", 1, 1], search), "ms"),
        *(
            figure
            for clients, users in runs
            for figure in _compared(
                f"{clients} × {users}", *(found[n, clients, users] for n in ("service", "baseline"))
            )
        ),
        *(_curve(name, users, found) for name, users in product(("service", "baseline"), _USERS)),
    ]


def _figures(name: str, times: RequestTimes) -> list[Figure]:
    requests = len(times.seconds)
    return [
        Figure(f"{name}: users", times.rate, "users/s"),
        *percentiles(f"{name}: request", times.seconds, (50, 99)),
        *(Figure(f"{name}: CPU of {who}", 1000 * s / requests, "s / 1,000 requests") for who, s in times.cpu.items()),
    ]


def _curve(name: str, users: int, found: Mapping[tuple[str, int, int], RequestTimes]) -> Curve:
    rates = {c: times.rate for (n, c, u), times in found.items() if (n, u) == (name, users)}
    return Curve(f"{name}, {users} a request", "clients", "users/s", list(rates), list(rates.values()))


def _compared(name: str, service: RequestTimes, baseline: RequestTimes) -> list[Figure]:
    p99 = np.percentile(service.seconds, 99) / np.percentile(baseline.seconds, 99)
    return [
        Figure(f"service / baseline, {name}: users", service.rate / baseline.rate, "×"),
        Figure(f"service / baseline, {name}: p99", float(p99), "×"),
    ]


def _excess_s(times: RequestTimes, search: list[float]) -> float:
    """Return the seconds by which the median request exceeds the median search; 0 if it does not."""
    return max(0.0, float(np.median(times.seconds) - np.median(search)))


_SHARED = {"dim": 64, "seconds": 10}
BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"items": 367_983, "users": 200_000, "clicks": 200_000, "most_clients": 128} | _SHARED,
        "lite": {"items": 2_000, "users": 200, "clicks": 1_000, "most_clients": 8} | _SHARED,
    },
    kafka=True,
    milvus=True,
    curves=True,
)
