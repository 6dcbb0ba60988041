"""Throughput, CPU time and memory by items, users, top-k, history length and number of workers.

One value is changed at a time. Workers own their partitions before the clicks are sent; the clicks are in rounds, so
that each is searched for, and form two backlogs, of which the second counts. Memory is the resident set at the end, of
the largest worker if there are several; that of a worker includes the pages of the item matrix that it has read, which
processes share. The workers, Kafka and Milvus share the machine: a second worker can only use what the first leaves
idle.

Milvus does not release all memory of earlier work. So each number of items and each length of the history, which need
models of their own, gets a new, empty Milvus (unless MINDSTREAM_MILVUS names one); the other points use that of the
base, one after the other, and their memory of Milvus includes that of earlier points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.answers import Recorder
from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop, Traffic
from benchmarks.harness.report import Curve, Figure
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import BenchmarkSite, benchmark_site
from benchmarks.harness.usage import cpu_seconds, memory_bytes
from benchmarks.latency import answer_backlog
from model.artifact import Artifact

#: Parameter → values to measure beside the base, as multiples of it. The size "values" is the number of values to
#: measure, the last ones.
_VALUES: Mapping[str, Sequence[float]] = {
    "items": (5, 18.4),
    "users": (0.2, 5),
    "top-k": (0.2, 4),
    "history": (0.5, 2.5),
    "workers": (2,),
}
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement.

    Attributes:
        rate: clicks/s.
        worker_cpu, milvus_cpu: CPU seconds per 1,000 clicks; of all workers.
        worker_memory, milvus_memory: bytes; of one worker.
        disk: bytes of the history stores.
    """

    rate: float
    worker_cpu: float
    milvus_cpu: float
    worker_memory: int
    milvus_memory: int
    disk: int


#: User of memory or disk → its bytes.
_MEMORY: Mapping[str, Callable[[Point], int]] = {
    "memory of a worker": lambda point: point.worker_memory,
    "memory of Milvus": lambda point: point.milvus_memory,
    "histories on disk": lambda point: point.disk,
}
#: Slopes to report: growth with a parameter, of a user of memory or disk.
_SLOPES = (
    ("items", "memory of a worker"),
    ("items", "memory of Milvus"),
    ("users", "memory of a worker"),
    ("users", "histories on disk"),
)


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure | Curve]:
    base = {"items": sizes["items"], "users": sizes["users"], "top-k": 50, "history": 20, "workers": 1}
    points: dict[tuple[str, int], Point] = {}
    for what, value, point in _points(servers, sizes, base):
        points[what, value] = point
    found: list[Figure | Curve] = []
    for what in _VALUES:
        series = sorted((value, point) for (name, value), point in points.items() if name == what)
        for value, point in series:
            found += _figures(f"{what} {value:,}", point)
        found += _curves(what, series)
    return [*found, *(slope(by, what, points) for by, what in _SLOPES)]


def slope(by: str, what: str, points: Mapping[tuple[str, int], Point]) -> Figure:
    """Return the growth of memory or disk `what` per million of `by`, from the smallest number to the largest."""
    series = sorted(value for name, value in points if name == by)
    few, many = series[0], series[-1]
    grown = _MEMORY[what](points[by, many]) - _MEMORY[what](points[by, few])
    return Figure(f"{what} by {by}", 1e6 * grown / _MIB / (many - few), f"MiB / million {by}")


def _points(servers: BenchmarkServers, sizes: Sizes, base: Mapping[str, int]) -> Iterator[tuple[str, int, Point]]:
    n = sizes["values"]
    changed = {what: [round(base[what] * part) for part in parts[-n:]] for what, parts in _VALUES.items()}

    def shop(items: int, users: int, length: int) -> Shop:
        folder = servers.folder / f"{items}-{users}-{length}"
        return Shop(folder, items=items, users=users, dim=sizes["dim"], clicks=sizes["clicks"], length=length)

    base_shop = shop(base["items"], base["users"], base["history"])
    servers.fresh_milvus()
    with servers.index(base_shop.artifact):
        point = _measure(servers, sizes, base_shop.artifact, base_shop.rounds())
        for what in changed:
            yield what, base[what], point
        for users in changed["users"]:
            # The artifact stays the same: users only decide which of its items are clicked.
            traffic = shop(base["items"], users, base["history"]).rounds()
            yield "users", users, _measure(servers, sizes, base_shop.artifact, traffic)
        for top_k in changed["top-k"]:
            yield "top-k", top_k, _measure(servers, sizes, base_shop.artifact, base_shop.rounds(), top_k=top_k)
        for workers in changed["workers"]:
            yield "workers", workers, _measure(servers, sizes, base_shop.artifact, base_shop.rounds(), workers=workers)
    others = [("items", n, shop(n, base["users"], base["history"])) for n in changed["items"]]
    others += [("history", n, shop(base["items"], base["users"], n)) for n in changed["history"]]
    for what, value, other in others:
        servers.fresh_milvus()
        with servers.index(other.artifact):
            yield what, value, _measure(servers, sizes, other.artifact, other.rounds())


def _measure(
    servers: BenchmarkServers, sizes: Sizes, artifact: Artifact, traffic: Traffic, *, top_k: int = 50, workers: int = 1
) -> Point:
    settings = {
        "batch.size": sizes["batch"],
        "milvus.timeout": 60.0,
        "recall.top_k": top_k,
        "history.length": artifact.history_length,
    }
    with benchmark_site(servers, "scaling", artifact, settings) as site, ExitStack() as stack:
        site.write_histories(traffic)
        team = [stack.enter_context(site.worker("--agents", "clicks", name=str(number))) for number in range(workers)]
        log, recorder = traffic.clicks(), Recorder(site)
        answer_backlog(site, team, recorder, log, sizes["clicks"])
        before = sum(cpu_seconds(worker.pid) for worker in team), servers.server_cpu().get("Milvus", 0.0)
        phase = answer_backlog(site, team, recorder, log, sizes["clicks"])
        spent = sum(cpu_seconds(worker.pid) for worker in team) - before[0]
        milvus = servers.server_cpu().get("Milvus", 0.0) - before[1]
        memory = max(memory_bytes(worker.pid) for worker in team)
        thousands = sizes["clicks"] / 1000
        return Point(
            rate=phase.rate(),
            worker_cpu=spent / thousands,
            milvus_cpu=milvus / thousands,
            worker_memory=memory,
            milvus_memory=servers.server_memory().get("Milvus", 0),
            disk=_disk(site, workers),
        )


def _disk(site: BenchmarkSite, workers: int) -> int:
    folders: list[Path] = [site.data_dir(str(number)) / "history" for number in range(workers)]
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _figures(name: str, point: Point) -> list[Figure]:
    return [
        Figure(f"{name}: clicks", point.rate, "clicks/s"),
        Figure(f"{name}: CPU of the workers", point.worker_cpu, "s / 1,000 clicks"),
        Figure(f"{name}: CPU of Milvus", point.milvus_cpu, "s / 1,000 clicks"),
        *(Figure(f"{name}: {what}", get(point) / _MIB, "MiB") for what, get in _MEMORY.items()),
    ]


def _curves(what: str, series: Sequence[tuple[int, Point]]) -> list[Curve]:
    values, points = [value for value, _ in series], [point for _, point in series]
    return [
        Curve("throughput", what, "clicks/s", values, [p.rate for p in points]),
        Curve("CPU of the workers", what, "s / 1,000 clicks", values, [p.worker_cpu for p in points]),
        Curve("CPU of Milvus", what, "s / 1,000 clicks", values, [p.milvus_cpu for p in points]),
        *(Curve(name, what, "MiB", values, [get(p) / _MIB for p in points]) for name, get in _MEMORY.items()),
    ]


_SHARED = {"dim": 64, "values": 2}
BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"items": 20_000, "users": 100_000, "clicks": 20_000, "batch": 256} | _SHARED,
        "lite": {"items": 400, "users": 200, "clicks": 300, "batch": 4} | _SHARED,
    },
    kafka=True,
    milvus=True,
    curves=True,
)
