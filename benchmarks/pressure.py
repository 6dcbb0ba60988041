"""More clicks than one worker sustains, for a while: memory, lag, losses, and the time to catch up.

Clicks are sent at twice the sustained rate, which is measured first. Memory is the worker's resident set; lag is
counted to the committed offset. At the end an audit recomputes every history from the clicks; a difference fails the
benchmark.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.harness.answers import Recorder
from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import Curve, Figure
from benchmarks.harness.servers import STALL_TIMEOUT_S, BenchmarkServers
from benchmarks.harness.site import BenchmarkSite, benchmark_site
from benchmarks.harness.usage import memory_bytes
from benchmarks.latency import LITE, STANDALONE, sustained_rate
from embedded.program import WorkerProgram
from streams.tools.audit import audit_kafka

#: Seconds between two measurements of memory and lag.
_INTERVAL_S = 0.5
_MIB = 2**20


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.from_sizes(servers.folder / "pressure", sizes)
    log = shop.rounds().clicks()
    with (
        servers.index(shop.artifact),
        # Without earlier histories, which the audit could not recompute.
        benchmark_site(
            servers, "pressure", shop.artifact, {"batch.size": sizes["batch"], "milvus.timeout": 60.0}
        ) as site,
    ):
        with site.worker("--agents", "clicks") as worker:
            sustained = sustained_rate(site, worker, Recorder(site), log, sizes["clicks"])
            rate, stop = 2 * sustained, threading.Event()
            servers.report(f"Sending {rate:.1f} clicks/s for {sizes['seconds']} s")
            with ThreadPoolExecutor(1) as thread:
                begin = time.monotonic()
                clicks = thread.submit(
                    site.send_clicks, log, limit=round(rate * sizes["seconds"]), rate=rate, stop=stop
                )
                try:
                    samples = _watch(site, worker, begin, clicks.done)
                finally:
                    stop.set()
                clicks.result()
        servers.report("Auditing")
        audit = audit_kafka(site.config)
    if not audit.ok:
        raise BenchmarkError(f"the audit found differences:\n{audit.to_text()}")
    at, memory, lag, complete = np.array(samples).T
    sent = float(at[complete == 1][0])
    return [
        Figure("sustained", sustained, "clicks/s"),
        Figure("sent", rate, "clicks/s"),
        Figure("largest lag", lag.max(), "clicks"),
        Figure("last click sent → all answered", float(at[-1]) - sent, "s"),
        Figure("memory before", memory[0] / _MIB, "MiB"),
        Figure("memory while clicks came, largest", memory[at <= sent].max() / _MIB, "MiB"),
        Figure("memory in all, largest", memory.max() / _MIB, "MiB"),
        Figure("clicks audited", audit.clicks, "clicks"),
        Figure("recommendations repeated", audit.repeats, "recommendations"),
        Curve("memory", "seconds", "MiB", at.tolist(), (memory / _MIB).tolist()),
        Curve("lag", "seconds", "clicks", at.tolist(), lag.tolist()),
    ]


def _watch(
    site: BenchmarkSite, worker: WorkerProgram, begin: float, sent: Callable[[], bool]
) -> list[tuple[float, int, int, bool]]:
    """Return (seconds, memory in bytes, lag, whether all is sent), measured until all is sent and answered."""
    samples: list[tuple[float, int, int, bool]] = []
    moved = time.monotonic()
    while True:
        worker.require_running()
        complete = sent()
        lag = site.lag()
        if not samples or lag != samples[-1][2]:
            moved = time.monotonic()
        samples.append((time.monotonic() - begin, memory_bytes(worker.pid), lag, complete))
        if complete and not lag:
            return samples
        if time.monotonic() - moved > STALL_TIMEOUT_S:
            raise BenchmarkError(f"the lag has been {lag} clicks for {STALL_TIMEOUT_S:.0f} s")
        time.sleep(_INTERVAL_S)


BENCHMARK = Benchmark(
    run,
    {"standalone": STANDALONE | {"seconds": 180}, "lite": LITE | {"seconds": 10}},
    kafka=True,
    milvus=True,
    curves=True,
)
