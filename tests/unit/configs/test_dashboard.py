"""configs/observability: the table, the dashboard and the alerts name only metrics that a worker exports.

This needs neither Prometheus nor Grafana; `promtool check rules`, run manually, checks more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from streams.metrics import (
    CatalogueMetrics,
    ClickMetrics,
    ItemMetrics,
    ReplicaMetrics,
    ServiceMetrics,
    StoreMetrics,
    worker_registry,
)
from streams.ports import ReplicaLag

FOLDER = Path(__file__).parents[3] / "configs" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "mindstream.json").read_text(encoding="utf-8"))
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
#: Words of PromQL where metric names can be.
KEYWORDS = {"and", "or", "unless", "bool", "offset"}
#: Labels that Prometheus adds.
TARGET_LABELS = {"job", "instance"}
#: Metrics of the process collector except its start; exported only on Linux.
PROCESS = re.compile(r"process_(?!start_time)")


def worker() -> CollectorRegistry:
    """Return the registry of a worker with both agents, and the metrics of a service's copies."""
    registry = worker_registry("m1")
    CatalogueMetrics(registry)
    ClickMetrics(registry).lag.labels(0)
    StoreMetrics(registry, lambda: 0)
    ItemMetrics(registry).lag.labels(0)
    replicas = ReplicaMetrics(registry)
    replicas.observe("histories", lambda: ReplicaLag(0, None, caught_up=False))
    replicas.foreign.labels("histories")
    service = ServiceMetrics(registry)
    service.requests.labels("/v1/recommendations", "200")
    service.seconds.labels("/v1/recommendations")
    return registry


def exported() -> dict[str, tuple[str, str, set[str]]]:
    """Return sample name → name in the table, type, labels."""
    found = {}
    for family in worker().collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "info" if suffix == "_info" else family.type
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name] = (family.name + suffix, kind, set(sample.labels))
    return found


EXPORTED = exported()
SAMPLES = EXPORTED.keys() | {"up"}
LABELS = set().union(TARGET_LABELS, *(labels for _, _, labels in EXPORTED.values()))


def names(expression: str) -> set[str]:
    """Return the metrics of a PromQL expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    return {m[1] for m in re.finditer(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)} - KEYWORDS


def labels(expression: str) -> set[str]:
    """Return the labels by which an expression groups or selects."""
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    selected = re.findall(r"(\w+)\s*[=!]~?\"", expression)
    return {name.strip() for part in grouped for name in part.split(",")} | set(selected)


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


QUERIES = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
RULES = [(rule["alert"], rule["expr"]) for rule in ALERTS]


def linux() -> bool:
    return Path("/proc/stat").exists()


def test_names_are_read_from_expressions() -> None:
    found = names(
        'histogram_quantile(0.9, sum by (le) (rate(a_bucket{x="not_me"}[5m]))) > 1e3 and on (job) time() - b:c > 0'
    )
    assert found == {"a_bucket", "b:c"}
    assert labels('sum by (le, stage) (a{x=~"y"}) and on (job) b') == {"le", "stage", "x", "job"}


def test_the_table_names_exactly_what_a_worker_exports() -> None:
    table: dict[str, str] = {}
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            _, cell, kind, *_ = line.split("|")
            for name in re.findall(r"`([^`]+)`", cell):
                assert name not in table, f"{name} is in the table twice"
                table[name] = kind.strip()
    if not linux():
        del table["process_start_time_seconds"]
    assert table == {name: kind for name, kind, _ in EXPORTED.values() if not PROCESS.match(name)}


def test_the_table_names_exactly_the_existing_alerts() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([A-Z][a-z]+[A-Za-z]+)`", text)) == {alert for alert, _ in RULES}


@pytest.mark.parametrize(("title", "expression"), QUERIES + RULES)
def test_every_query_names_metrics_and_labels_that_exist(title: str, expression: str) -> None:
    found = names(expression)
    assert found
    missing = found - SAMPLES
    assert not {name for name in missing if linux() or not name.startswith("process_")}
    assert labels(expression) <= LABELS


def test_the_dashboard_shows_every_metric() -> None:
    shown = set().union(*(names(expression) for _, expression in QUERIES))
    families = {EXPORTED[name][0] for name in shown & EXPORTED.keys()}
    assert {name for name, _, _ in EXPORTED.values() if name.startswith("mindstream_")} <= families


def test_the_dashboard_queries_the_provisioned_data_source() -> None:
    text = (FOLDER / "grafana" / "datasources" / "prometheus.yml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    asked = [panel["datasource"] for panel in panels()]
    asked += [target["datasource"] for panel in panels() for target in panel["targets"]]
    asked += [entry["datasource"] for entry in DASHBOARD["templating"]["list"] + DASHBOARD["annotations"]["list"]]
    assert {(found["type"], found["uid"]) for found in asked} == {("prometheus", source["uid"])}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_has_a_summary_and_an_action() -> None:
    assert len({alert for alert, _ in RULES}) == len(RULES)
    for rule in ALERTS:
        assert set(rule) <= {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "action"}


def test_the_threshold_of_late_recommendations_exceeds_a_loaded_worker_and_is_on_the_dashboard() -> None:
    (expression,) = (rule["expr"] for rule in ALERTS if rule["alert"] == "RecommendationsLate")
    late = float(expression.rpartition(">")[2])
    assert f'le="{late}"' in generate_latest(worker()).decode()
    figures = (FOLDER.parents[1] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (loaded,) = re.findall(r"^\| 80 % \|.*\| ([\d,]+) ms \|$", figures, re.MULTILINE)
    assert late > int(loaded.replace(",", "")) / 1000
    (panel,) = (panel for panel in panels() if panel["title"] == "Click → recommendation, p99")
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == late


def test_alerts_and_dashboard_select_the_jobs_that_prometheus_has() -> None:
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    jobs = {job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]}
    for _, expression in QUERIES + RULES:
        for found in re.findall(r'job=~?"([^"]*)"', expression):
            assert set(found.split("|")) <= jobs
