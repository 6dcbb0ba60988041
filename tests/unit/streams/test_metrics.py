"""Values of the metrics as a scrape reads them; `tests/unit/configs/test_dashboard.py` checks the names."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streams.errors import Reason
from streams.metrics import STAGES, BatchHistogram, ClickMetrics, ItemMetrics, Stopwatch, worker_registry
from tests.unit.fakes import ClickWorld, click_message


def _samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """Return (sample, bucket, stage) → value, as a scrape reads them."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, sample.labels.get("le", ""), sample.labels.get("stage", "")): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_batch_histogram_exports_what_prometheus_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = BatchHistogram(ours, "x_seconds", "Time", (0.1, 1.0), "stage", ("a", "b"))
    reference = Histogram("x_seconds", "Time", ["stage"], registry=theirs, buckets=(0.1, 1.0))
    reference.labels("b")
    for amount in (0.0, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(amount, "a")
        reference.labels("a").observe(amount)
    assert _samples(ours) == pytest.approx(_samples(theirs))
    assert _samples(ours)["x_seconds_bucket", "1.0", "a"] == 4


def test_a_batch_histogram_may_have_no_label() -> None:
    registry = CollectorRegistry()
    BatchHistogram(registry, "x_seconds", "Time", (1.0,)).observe(0.5)
    assert _samples(registry) == {
        ("x_seconds_bucket", "1.0", ""): 1,
        ("x_seconds_bucket", "+Inf", ""): 1,
        ("x_seconds_count", "", ""): 1,
        ("x_seconds_sum", "", ""): 0.5,
    }


def test_a_stopwatch_times_each_stage_from_the_end_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    stopwatch = Stopwatch(BatchHistogram(registry, "x_seconds", "Time", (1.0,), "stage", ("a", "b")))
    now[0] += 2
    stopwatch("a")
    now[0] += 3
    stopwatch("b")
    samples = _samples(registry)
    assert (samples["x_seconds_sum", "", "a"], samples["x_seconds_sum", "", "b"]) == (2, 3)


def test_a_batch_of_clicks_is_timed_in_every_stage() -> None:
    world = ClickWorld()
    world.process([click_message(0, 1, 2), click_message(1, 2, 3), click_message(2, 1, 3)])
    (family,) = world.metrics.stages.collect()
    counts = {s.labels["stage"]: s.value for s in family.samples if s.name.endswith("_count")}
    assert counts == dict.fromkeys(STAGES, 1)
    (family,) = world.metrics.latency.collect()
    found = {s.name: s.value for s in family.samples if "le" not in s.labels}
    # The newest clicks of the two users were made 9 and 8 seconds ago.
    assert found == {f"{family.name}_count": 2, f"{family.name}_sum": 17}


@pytest.mark.parametrize("metrics", [ClickMetrics, ItemMetrics])
def test_dead_letters_are_exported_as_0_for_every_reason(metrics: type[ClickMetrics | ItemMetrics]) -> None:
    registry = CollectorRegistry()
    metrics(registry)
    (family,) = (f for f in registry.collect() if f.name.endswith("_dead_letters"))
    totals = {s.labels["reason"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert totals == dict.fromkeys(get_args(Reason), 0)


def test_every_worker_exports_its_model_version() -> None:
    assert worker_registry("m1").get_sample_value("mindstream_model_info", {"version": "m1"}) == 1
