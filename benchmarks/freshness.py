"""Time from publishing a new item to a search that finds it, through Kafka and the item agent, while clicks flow.

One worker runs both agents; clicks come at half the rate that it sustains, measured first. Items are published one
after the other, each when the one before was found. The search is the Eventually consistent one of the hot path; it is
repeated every 10 ms, which is part of the figure.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import Shop
from benchmarks.latency import LITE, STANDALONE, sustained
from benchmarks.report import Figure, percentiles
from benchmarks.stage import Stage
from embedded.freshness import GIVE_UP, NewItems
from producers.cli import progress_bar


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure]:
    shop = Shop.of(stage.folder / "freshness", sizes)
    found, stop = [], threading.Event()
    with (
        stage.index(shop.artifact),
        sustained(stage, shop, sizes, "clicks,items") as steady,
        closing(NewItems(steady.site.config, shop.artifact)) as items,
    ):
        items.publish_one()  # connections are made, the collection is warm
        stage.report(f"Publishing {sizes['published']:,} items, one after the other")
        with ThreadPoolExecutor(2) as threads, progress_bar(sizes["published"], "items") as show:
            rate = steady.rate / 2
            clicks = threads.submit(steady.site.send, steady.log, limit=10**9, rate=rate, stop=stop)
            try:
                for number in range(sizes["published"]):
                    # Not in this thread: where Ctrl-C comes in the midst of a call, gRPC may wait for its end for ever.
                    found.append(threads.submit(items.publish_one).result())
                    steady.worker.check()
                    show(number + 1)
            finally:
                stop.set()
            clicks.result()
    missed = sum(seconds >= GIVE_UP for seconds in found)
    return [
        Figure("clicks meanwhile", rate, "clicks/s"),
        *percentiles("published → found by a search", found, (50, 95, 99, 100)),
        Figure(f"not found within {GIVE_UP:.0f} s", missed, "items"),
    ]


BENCHMARK = Benchmark(
    run, {"standalone": STANDALONE | {"published": 600}, "lite": LITE | {"published": 100}}, True, True
)
