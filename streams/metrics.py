"""Metrics of the worker, by Prometheus' conventions: base units, and names that end in their unit.

`configs/observability/README.md` explains each metric and its alerts; a test compares it with what is exported here.
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
from streams.ports import ReplicaLag

#: Seconds, from well below one Milvus search to the session timeout.
_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
#: Messages: powers of four up to the largest batch allowed.
_SIZE_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096)
#: Seconds, from a NumPy call to a search or a flush that hangs.
_STAGE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: Stages of a batch of clicks, in order (`streams.processing.clicks`); embed, encode, search and merge are the recall.
STAGES = ("decode", "read", "embed", "encode", "search", "merge", "pack", "produce", "acknowledge", "store")
#: What is done with a row that differs from the topic (`streams.processing.item_repair`).
REPAIRS = ("added", "rewritten", "deleted")


class BatchHistogram(Collector):
    """A histogram that a single thread writes, without locks.

    It is called for each user of each batch. An observation of prometheus_client's histogram acquires two locks and
    walks through the buckets, which takes four times as long. Without locks, a scrape may see an observation counted
    but not summed.

    Args:
        registry: exports the histogram.
        name, documentation: name and help text of the metric.
        buckets: upper bounds, ascending, without infinity.
        label, values: name of its only label, and all values of that label; by default, there is no label.
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


class Stopwatch:
    """Times consecutive stages: each call ends the stage that it names, and starts the next one."""

    def __init__(self, stages: BatchHistogram) -> None:
        self._stages = stages
        self._started = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self._stages.observe(now - self._started, stage)
        self._started = now


class BatchMetrics:
    """Metrics that every agent has; `agent` is "clicks" or "items"."""

    def __init__(self, registry: CollectorRegistry, agent: str) -> None:
        def name(suffix: str) -> str:
            return f"mindstream_{agent}_{suffix}"

        self.dead_letters = Counter(
            name("dead_letters"), "Messages sent to the dead-letter topic", ["reason"], registry=registry
        )
        for reason in get_args(Reason):
            self.dead_letters.labels(reason)  # exported as 0: a rate needs a value before the first dead letter
        self.retries = Counter(
            name("retries"),
            "Calls retried because Kafka or Milvus was unavailable",
            registry=registry,
        )
        self.removed = Counter(
            name("removed_unread"), "Messages that Kafka removed before they were read", registry=registry
        )
        self.batch_size = Histogram(
            name("batch_messages"), "Messages in a finished batch", registry=registry, buckets=_SIZE_BUCKETS
        )
        self.batch_seconds = Histogram(
            name("batch_seconds"),
            "Time to process a batch, with its retries",
            registry=registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self.waiting = Gauge(
            name("waiting_seconds"), "For how long the current call has been retried; 0 = not at all", registry=registry
        )
        self.partitions = Gauge(name("partitions"), "Partitions that this process owns", registry=registry)
        self.topic_partitions = Gauge(name("topic_partitions"), "Partitions of the agent's topic", registry=registry)
        self.lag = Gauge(
            name("lag_messages"),
            "Messages behind the committed offset, of the partitions that this process owns",
            ["partition"],
            registry=registry,
        )
        self.last_progress = Gauge(
            name("last_progress_timestamp_seconds"),
            "Unix time at which the last batch was finished; 0 = none yet",
            registry=registry,
        )


def worker_registry(model_version: str) -> CollectorRegistry:
    """Return a registry with the metrics that every worker has.

    These are `mindstream_model_info`, which is always 1 and has the model version as its label, and the metrics of the
    process (start, CPU, memory, open files; on Linux only).
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    model = Info("mindstream_model", "The model that this process works with", registry=registry)
    model.info({"version": model_version})
    return registry


class CatalogueMetrics:
    """Metrics that compare the collection with the model's items."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rows = Gauge(
            "mindstream_catalogue_rows", "Items in the collection when they were last counted", registry=registry
        )
        self.items = Gauge("mindstream_catalogue_model_items", "Items of the model", registry=registry)


class ClickMetrics(BatchMetrics):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "clicks")
        self.clicks = Counter("mindstream_clicks", "Readable clicks received", registry=registry)
        self.repeats = Counter(
            "mindstream_clicks_repeated",
            "Clicks delivered again by Kafka, and not applied again",
            registry=registry,
        )
        self.recommendations = Counter(
            "mindstream_recommendations", "Recommendations acknowledged by Kafka", registry=registry
        )
        self.short_recommendations = Counter(
            "mindstream_recommendations_short",
            "Recommendations with fewer items than recall.top_k",
            registry=registry,
        )
        self.empty_recommendations = Counter(
            "mindstream_recommendations_empty", "Recommendations without any item", registry=registry
        )
        self.short_searches = Counter(
            "mindstream_searches_short",
            "Searches that found fewer items than the collection held when it was last counted",
            registry=registry,
        )
        self.restored = Counter(
            "mindstream_restored_records", "Changelog records applied when partitions were assigned", registry=registry
        )
        self.unusable = Counter(
            "mindstream_unusable_histories",
            "Users of a batch without recommendation, because no item of their history is known",
            registry=registry,
        )
        self.answered_later = Counter(
            "mindstream_users_answered_later",
            "Users answered again, without a click, because the vector of an item that they clicked has arrived",
            registry=registry,
        )
        self.vectors_missing = Counter(
            "mindstream_users_vectors_missing",
            "Users who clicked an item whose vector has not arrived within half a minute",
            registry=registry,
        )
        self.latency = BatchHistogram(
            registry,
            "mindstream_click_to_recommendation_seconds",
            "Time from the timestamp of a user's newest click to the acknowledged recommendation",
            _LATENCY_BUCKETS_S,
        )
        self.stages = BatchHistogram(
            registry,
            "mindstream_clicks_stage_seconds",
            "Time of a batch in each stage that it finished",
            _STAGE_BUCKETS_S,
            "stage",
            STAGES,
        )

    def stopwatch(self) -> Stopwatch:
        """Start to time the stages of a batch."""
        return Stopwatch(self.stages)


class StoreMetrics:
    """Metrics of the local histories and their changelog.

    Args:
        registry: exports them.
        damaged: returns the number of damaged folders.
    """

    def __init__(self, registry: CollectorRegistry, damaged: Callable[[], int]) -> None:
        self.foreign = Counter(
            "mindstream_changelog_foreign_messages",
            "Messages read from the changelog and ignored, because they are no history records",
            registry=registry,
        )
        Gauge(
            "mindstream_damaged_stores",
            "Folders of local histories that were damaged and are set aside",
            registry=registry,
        ).set_function(damaged)


class ReplicaMetrics:
    """Metrics of the local copies of topics; `replica` is "histories" or "recommendations"."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Gauge(
            "mindstream_replica_lag_messages",
            "Messages that the local copy has to read",
            ["replica"],
            registry=registry,
        )
        self._age = Gauge(
            "mindstream_replica_age_seconds",
            "Everything that Kafka had this many seconds ago is in the local copy; NaN = it has not caught up yet",
            ["replica"],
            registry=registry,
        )
        self.foreign = Counter(
            "mindstream_replica_foreign_messages",
            "Messages read from the topic and ignored, because they are no records of it",
            ["replica"],
            registry=registry,
        )

    def observe(self, replica: str, lag: Callable[[], ReplicaLag]) -> None:
        """Export the lag of a copy from now on."""
        self._lag.labels(replica).set_function(lambda: lag().messages)
        self._age.labels(replica).set_function(lambda: math.nan if (age_s := lag().age_s) is None else age_s)


class ItemMetrics(BatchMetrics):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "items")
        self.upserts = Counter("mindstream_item_upserts", "Item vectors written to the index", registry=registry)
        self.freshness = BatchHistogram(
            registry,
            "mindstream_item_publish_to_upsert_seconds",
            "Time from the timestamp of an item's message to the acceptance of its vector by the index",
            _LATENCY_BUCKETS_S,
        )
        self.removals = Counter("mindstream_item_removals", "Items removed from the index", registry=registry)
        self.repaired = Counter(
            "mindstream_item_rows_repaired",
            "Rows of the index that differed from their item's newest message",
            ["kind"],
            registry=registry,
        )
        for kind in REPAIRS:
            self.repaired.labels(kind)
        self.compared = Gauge(
            "mindstream_items_compared_timestamp_seconds",
            "Unix time at which all rows of the owned partitions were last compared with the topic",
            registry=registry,
        )
        self.compared.set_to_current_time()
        self.other_versions = Counter(
            "mindstream_items_of_other_versions",
            "Item messages ignored because they belong to another model version",
            registry=registry,
        )


class ServiceMetrics:
    """Metrics of the recall service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "mindstream_service_requests",
            "Requests by the template of their path and the status of their answer",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "mindstream_service_request_seconds",
            "Time from a request to the end of its answer",
            ["route"],
            registry=registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self.batch_users = Histogram(
            "mindstream_service_batch_users",
            "Users who shared one encoding and one search",
            registry=registry,
            buckets=_SIZE_BUCKETS,
        )
        self.short_searches = Counter(
            "mindstream_service_searches_short",
            "Searches that found fewer items than the collection held when it was last counted",
            registry=registry,
        )
        self.queue_users = Gauge(
            "mindstream_service_queue_users", "Users whose requests wait for the next search", registry=registry
        )
