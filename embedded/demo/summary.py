"""The table that the demo ends with."""

from __future__ import annotations

from configs.text import count
from embedded.demo.messages import BROKEN_MESSAGES
from embedded.demo.scoreboard import Scoreboard, percentile
from streams.recall.hit_rate import CUTOFF
from streams.tools.audit_report import AuditReport


def summary_rows(board: Scoreboard, report: AuditReport) -> dict[str, str]:
    """Return name → text of each row: what was measured, then what the audit found."""
    ours, popular = board.hit_rate.rates()
    latencies, new_items = board.latencies_s, board.new_items
    searchable = new_items.searchable_s
    return {
        "clicks in": f"{report.clicks:,}",
        "recommendations out": f"{report.recommendations:,}",
        "users": f"{report.users:,} ({report.without_candidates:,} without a known item, so without a recommendation)",
        "click → recommendation": f"p50 {percentile(latencies, 50)}, p99 {percentile(latencies, 99)}",
        f"already recommended (hit@{CUTOFF})": f"{ours:.1%} of {count(board.hit_rate.judged, 'click')}; "
        f"popular items: {popular:.1%}",
        "new item searchable": f"p50 {percentile(searchable, 50)}, max {percentile(searchable, 100)} "
        f"({count(len(searchable), 'item')} published during the run, "
        f"{len(new_items.first_recommended_s)} of them recommended)",
        "dead letters": f"{report.dead_letters} ({len(BROKEN_MESSAGES)} broken messages were sent on purpose)",
        "histories recomputed": f"{report.users - report.histories_different - report.histories_missing:,} of "
        f"{report.users:,} equal",
        "rows in Milvus": f"{(report.items or 0) - (report.rows_missing or 0) - (report.rows_stale or 0):,} of "
        f"{report.items or 0:,} items as published",
        "unaccounted": f"{sum(report.findings.values())}"
        + "".join(f"; {name.replace('_', ' ')}: {number}" for name, number in report.findings.items()),
    }
