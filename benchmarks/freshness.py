"""Time from publishing a new item to a search that finds it, through Kafka and the item agent, while clicks flow.

One worker runs both agents. Clicks are sent at half its sustained rate, which is measured first; the rate at which it
answers them is reported. Items are published on an open schedule: the time of each counts from its scheduled time,
however late the items before it were. The search is the worker's, with the consistency level Bounded; it is repeated
every 10 ms, which is part of the figure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop
from benchmarks.harness.report import Figure, percentiles
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.latency import LITE, STANDALONE, sustained
from configs.cli import progress_bar
from embedded.new_items import FIND_TIMEOUT_S, NewItems
from embedded.program import WorkerProgram

#: Items/s.
_RATE = 5
#: Items that are searched for at the same time if none of them is found.
_MAX_SEARCHES = round(_RATE * FIND_TIMEOUT_S)


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    shop = Shop.from_sizes(servers.folder / "freshness", sizes)
    stop = threading.Event()
    with (
        servers.index(shop.artifact),
        sustained(servers, shop, sizes, "clicks,items") as steady,
        closing(NewItems(steady.site.config, shop.artifact)) as items,
    ):
        items.publish_one()  # connections are made, the collection is warmed up
        servers.report(f"Publishing {sizes['published']:,} items at {_RATE} items/s")
        with ThreadPoolExecutor(1) as sender:
            clicks = sender.submit(steady.site.send_clicks, steady.log, limit=10**9, rate=steady.rate / 2, stop=stop)
            try:
                found = publish_all(items, sizes["published"], steady.worker)
            finally:
                stop.set()
            clicks.result()
        steady.site.await_commits(steady.worker)
        rate = steady.recorder.phase().rate()
    missed = sum(seconds >= FIND_TIMEOUT_S for seconds in found)
    return [
        Figure("clicks answered meanwhile", rate, "clicks/s"),
        *percentiles("published → found by a search", found, (50, 95, 99, 100)),
        Figure(f"not found within {FIND_TIMEOUT_S:.0f} s", missed, "items"),
    ]


def publish_all(items: NewItems, n: int, worker: WorkerProgram) -> list[float]:
    """Publish n items; return the seconds from the scheduled time of each until it is found."""
    begin = time.monotonic()
    # Not in this thread: if Ctrl-C interrupts a gRPC call, gRPC may wait for its end without limit.
    with (
        ThreadPoolExecutor(1) as publisher,
        ThreadPoolExecutor(_MAX_SEARCHES) as threads,
        progress_bar(n, "items") as show,
    ):
        searches = []
        for number in range(n):
            scheduled = begin + number / _RATE
            time.sleep(max(0.0, scheduled - time.monotonic()))
            item = publisher.submit(items.publish).result()
            searches.append(threads.submit(items.await_found, *item, scheduled))
            worker.require_running()
            show(number + 1)
        return [search.result() for search in searches]


BENCHMARK = Benchmark(
    run, {"standalone": STANDALONE | {"published": 600}, "lite": LITE | {"published": 100}}, kafka=True, milvus=True
)
