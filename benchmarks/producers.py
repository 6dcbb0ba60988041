"""Rates of the producers, with every message acknowledged: a catalogue's item vectors, and replayed clicks.

Nothing reads the topics. The time runs from the connection to the last acknowledgement and includes encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import click_log, random_artifact
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import Figure
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import BenchmarkSite, benchmark_site
from configs.cli import progress_bar
from producers.items import items_sender
from producers.replay import clicks_sender, replay
from producers.sender import SendReport, send_all
from streams.processing.item_messages import item_messages


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    with benchmark_site(servers, "producers") as site:
        items = _publish(servers, site, sizes)
        clicks = _replay(servers, site, sizes)
    return [
        Figure(f"publishing items of {sizes['dim']} dimensions", items.rate, "items/s"),
        Figure("replaying clicks", clicks.rate, "clicks/s"),
    ]


def _publish(servers: BenchmarkServers, site: BenchmarkSite, sizes: Sizes) -> SendReport:
    artifact = random_artifact(servers.folder / "producers", sizes["items"], sizes["dim"])
    servers.report(f"Publishing {sizes['items']:,} items")
    sender = items_sender(site.replay)
    sender.connect()
    with progress_bar(sizes["items"], "items") as show:
        report = send_all(sender, item_messages(artifact), lambda report: show(report.delivered))
    return _require_complete(report)


def _replay(servers: BenchmarkServers, site: BenchmarkSite, sizes: Sizes) -> SendReport:
    log = click_log(sizes["clicks"], sizes["users"], items=min(5_000, sizes["items"]))
    servers.report(f"Replaying {sizes['clicks']:,} clicks")
    with progress_bar(sizes["clicks"], "clicks") as show:
        report = replay(log, site.replay, clicks_sender(site.replay), lambda report: show(report.delivered))
    return _require_complete(report)


def _require_complete(report: SendReport) -> SendReport:
    if report.failed:
        raise BenchmarkError(f"{report.failed} messages were not delivered: {report.reasons.most_common(1)}")
    return report


_SIZES = {"items": 368_000, "dim": 64, "clicks": 200_000, "users": 20_000}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=True, milvus=False)
