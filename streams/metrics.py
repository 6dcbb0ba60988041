"""Metrics of the worker, in Prometheus' conventions: seconds, base units, an injected registry.

`configs/observability/README.md` says what each one means and when to act; the tests hold it to what is exported here.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from streams.errors import Reason

#: Seconds. From well below one Milvus search to the session timeout.
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
#: Messages. Powers of four up to the largest batch allowed.
_SIZES = (1, 4, 16, 64, 256, 1024, 4096)
#: Seconds. From a NumPy call to a search or a flush that hangs.
_STAGE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: What a batch of clicks goes through, in this order (`streams.processing.clicks`); embed to merge are the recall.
STAGES = ("decode", "read", "embed", "encode", "search", "merge", "pack", "produce", "acknowledge", "store")


class BatchHistogram(Collector):
    """A histogram that one thread alone writes.

    prometheus_client's locks twice and walks through the buckets: four times as long, for each user of each batch. One
    writer needs no lock; a scrape may see an observation without its sum.

    Args:
        registry: that exports it.
        name, documentation: of the metric.
        buckets: upper bounds, ascending, without infinity.
        label, values: its one label and all values of it; none by default.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        buckets: Sequence[float],
        label: str | None = None,
        values: Sequence[str] = ("",),
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = (*buckets, math.inf)
        self._label = label
        self._counts = {value: [0] * len(self._bounds) for value in values}
        self._sums = dict.fromkeys(values, 0.0)
        registry.register(self)

    def observe(self, amount: float, value: str = "") -> None:
        """Count `amount` in the series of the label's `value`."""
        self._counts[value][bisect_left(self._bounds, amount)] += 1
        self._sums[value] += amount

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
        bounds = ["+Inf" if math.isinf(bound) else repr(float(bound)) for bound in self._bounds]
        for value, counts in self._counts.items():
            cumulative = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            family.add_metric([value] if self._label else [], cumulative, self._sums[value])
        yield family


class BatchMetrics:
    """What every agent counts; `agent` is "clicks" or "items"."""

    def __init__(self, registry: CollectorRegistry, agent: str) -> None:
        def name(suffix: str) -> str:
            return f"mindstream_{agent}_{suffix}"

        self.dead_letters = Counter(
            name("dead_letters"), "Messages sent to the dead-letter topic", ["reason"], registry=registry
        )
        for reason in get_args(Reason):
            self.dead_letters.labels(reason)  # a rate needs the 0 before the first one
        self.retries = Counter(name("retries"), "Batches tried again after a transient fault", registry=registry)
        self.batch_size = Histogram(name("batch_messages"), "Messages in a batch", registry=registry, buckets=_SIZES)
        self.batch_seconds = Histogram(
            name("batch_seconds"), "Time to process a batch", registry=registry, buckets=_LATENCY
        )
        self.waiting = Gauge(
            name("waiting_seconds"), "How long the call in hand has been tried again; 0 = not at all", registry=registry
        )
        self.partitions = Gauge(name("partitions"), "Partitions that this process owns", registry=registry)
        self.lag = Gauge(
            name("lag_messages"),
            "Messages behind the committed offset, of the partitions that this process owns",
            ["partition"],
            registry=registry,
        )
        self.last_progress = Gauge(
            name("last_progress_timestamp_seconds"), "When the last batch was finished", registry=registry
        )


def worker_registry(model_version: str) -> CollectorRegistry:
    """A registry that tells what every worker tells: its model, as the label of a metric that is always 1, and the
    process (start, CPU, memory, open files; on Linux only).
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    model = Info("mindstream_model", "The model that this process works with", registry=registry)
    model.info({"version": model_version})
    return registry


class ClickMetrics(BatchMetrics):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "clicks")
        self.clicks = Counter("mindstream_clicks", "Readable clicks received", registry=registry)
        self.repeats = Counter(
            "mindstream_clicks_repeated", "Clicks that a fence stopped: delivered again by Kafka", registry=registry
        )
        self.recommendations = Counter("mindstream_recommendations", "Recommendations sent", registry=registry)
        self.restored = Counter(
            "mindstream_restored_records", "Changelog records applied when partitions were assigned", registry=registry
        )
        self.unusable = Counter(
            "mindstream_unusable_histories",
            "Users of a batch without recommendation: no item of the history is known",
            registry=registry,
        )
        self.latency = BatchHistogram(
            registry,
            "mindstream_click_to_recommendation_seconds",
            "From the time stamp of a user's newest click to the acknowledged recommendation",
            _LATENCY,
        )
        self.stages = BatchHistogram(
            registry, "mindstream_clicks_stage_seconds", "Time of a batch's finished stages", _STAGE, "stage", STAGES
        )

    def stopwatch(self) -> Callable[[str], None]:
        """Starts with this call; each call of what it returns names the stage that has just ended."""
        last = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal last
            now = time.perf_counter()
            self.stages.observe(now - last, stage)
            last = now

        return lap


class ItemMetrics(BatchMetrics):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "items")
        self.upserts = Counter("mindstream_item_upserts", "Item vectors written to the index", registry=registry)
        self.freshness = BatchHistogram(
            registry,
            "mindstream_item_publish_to_upsert_seconds",
            "From the time stamp of an item's message to its acceptance by the index",
            _LATENCY,
        )
        self.removals = Counter("mindstream_item_removals", "Items removed from the index", registry=registry)
        self.other_versions = Counter(
            "mindstream_items_of_other_versions",
            "Item messages passed over because they belong to another model version",
            registry=registry,
        )
