"""Time from publishing a new item to a search that finds it, through Kafka, the item worker and Milvus.

Items are published one after the other, each when the one before was found. The search is the Eventually consistent
one of the hot path; it is repeated every 10 ms, which is part of the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import random_artifact
from benchmarks.report import Figure, percentiles
from benchmarks.stage import Stage
from embedded.freshness import GIVE_UP, NewItems
from producers.cli import progress_bar


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure]:
    artifact = random_artifact(stage.folder / "freshness", sizes["catalogue"], sizes["dim"])
    with stage.site("freshness", artifact, {"milvus.timeout": 30.0}) as site:
        site.fill_index()
        with site.worker("items") as worker:
            items = NewItems(site.config, artifact)
            items.publish_one()  # connections are made, the collection is warm
            stage.report(f"Publishing {sizes['items']:,} items, one after the other")
            found = []
            with progress_bar(sizes["items"], "items") as show:
                for number in range(sizes["items"]):
                    found.append(items.publish_one())
                    worker.check()
                    show(number + 1)
            items.close()
    missed = sum(seconds >= GIVE_UP for seconds in found)
    return [
        *percentiles("published → found by a search", found, (50, 95, 99, 100)),
        Figure(f"not found within {GIVE_UP:.0f} s", missed, "items"),
    ]


BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"items": 100, "catalogue": 20_000, "dim": 64},
        "lite": {"items": 100, "catalogue": 2_000, "dim": 64},
    },
    kafka=True,
    milvus=True,
)
