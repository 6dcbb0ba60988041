"""The verdict of an audit."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from streams.tools.audit_report import FINDINGS, AuditReport

BALANCED = AuditReport(*[0] * (len(fields(AuditReport)) - 5))


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_fails_the_audit_and_is_named(name: str) -> None:
    report = replace(BALANCED, **{name: 3})
    assert (report.ok, report.findings) == (False, {name: 3})
    assert f"AUDIT FAILED: {name.replace('_', ' ')} must be 0" in report.to_text()
    assert json.loads(report.to_json())["ok"] is False


def test_the_other_figures_are_only_counted() -> None:
    counts = {field.name: 7 for field in fields(AuditReport) if field.name not in FINDINGS}
    report = replace(BALANCED, **counts)
    assert report.ok
    text = " ".join(report.to_text().split())
    assert text.endswith("audit passed")
    assert "rows missing not compared" in text
    names = [field.name for field in fields(AuditReport)]
    assert tuple(names[names.index("unaccounted") :]) == FINDINGS, "all figures from `unaccounted` on"
