"""Counters of the worker, in Prometheus' conventions: seconds, base units, an injected registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

#: Seconds. From well below one Milvus search to the session timeout.
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
#: Messages. Powers of four up to the largest batch allowed.
_SIZES = (1, 4, 16, 64, 256, 1024, 4096)


class BatchMetrics:
    """What every agent counts; `agent` is "clicks" or "items"."""

    def __init__(self, registry: CollectorRegistry, agent: str) -> None:
        def name(suffix: str) -> str:
            return f"mindstream_{agent}_{suffix}"

        self.dead_letters = Counter(
            name("dead_letters"), "Messages sent to the dead-letter topic", ["reason"], registry=registry
        )
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


def publish_model(registry: CollectorRegistry, version: str) -> None:
    """Name the model that this process works with, as the label of a metric that is always 1."""
    Info("mindstream_model", "The model that this process works with", registry=registry).info({"version": version})


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
        self.latency = Histogram(
            "mindstream_click_to_recommendation_seconds",
            "From the click's own time stamp to the acknowledged recommendation",
            registry=registry,
            buckets=_LATENCY,
        )


class ItemMetrics(BatchMetrics):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "items")
        self.upserts = Counter("mindstream_item_upserts", "Item vectors written to the index", registry=registry)
        self.removals = Counter("mindstream_item_removals", "Items removed from the index", registry=registry)
        self.other_versions = Counter(
            "mindstream_items_of_other_versions",
            "Item messages passed over because they belong to another model version",
            registry=registry,
        )
