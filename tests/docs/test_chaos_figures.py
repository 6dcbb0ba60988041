"""The rules that the chaos suite checks, the table that it prints, and the table of its page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from configs.errors import EXIT_DEFECT, EXIT_STALLED, EXIT_TRANSIENT
from streams.tools.audit_report import AuditReport
from tests.chaos.figures import KILLED, Figures, table
from tests.chaos.fleet import Shutdown
from tests.chaos.scenarios import SCENARIOS
from tests.docs.documents import ROOT

BALANCED = AuditReport(*[0] * len(AuditReport.__dataclass_fields__))
GOOD = Figures("kill", 1000, 0, [KILLED, EXIT_TRANSIENT], [Shutdown(0, 1.25)], 3, 1, 2.5, 4.0, 0, 0, BALANCED)


def test_kills_and_spent_retry_budgets_are_allowed() -> None:
    assert GOOD.ok
    assert GOOD.wrong == []


@pytest.mark.parametrize("status", [EXIT_DEFECT, EXIT_STALLED, -6, 0, 1])
def test_a_worker_must_not_exit_in_another_way(status: int) -> None:
    figures = replace(GOOD, ends=[KILLED, status])
    assert not figures.ok
    assert f"[{status}]" in figures.wrong[0]


@pytest.mark.parametrize("shutdown", [Shutdown(EXIT_DEFECT, 1.0), Shutdown(-9, 1.0), Shutdown(0, 5.0)])
def test_a_stopped_worker_must_exit_soon_and_with_status_0(shutdown: Shutdown) -> None:
    assert not replace(GOOD, shutdowns=[Shutdown(0, 0.1), shutdown]).ok


def test_nothing_may_be_lost() -> None:
    assert not replace(GOOD, clicks_missing=1).ok
    assert not replace(GOOD, items_different=1).ok
    assert not replace(GOOD, dead_letters_missing=1).ok
    assert not replace(GOOD, unmet="no worker was killed").ok
    assert not replace(GOOD, report=replace(BALANCED, users_stale=1)).ok


def test_the_table_is_markdown_with_a_row_for_each_scenario() -> None:
    rounds = [GOOD, replace(GOOD, longest_pause=7.0, shutdowns=[Shutdown(0, 2.0)]), replace(GOOD, scenario="zombie")]
    assert table(rounds).splitlines() == [
        "| scenario | clicks | kills | exits | repeats | out of order | pause |",
        "|---|---|---|---|---|---|---|",
        "| kill | 2,000 | 2 | 2 | 6 | 2 | 7.0 s |",
        "| zombie | 1,000 | 1 | 1 | 3 | 1 | 2.5 s |",
        "",
        "3,000 clicks in 3 scenarios, 0 of them wrong; longest from SIGTERM to exit 2.0 s",
    ]


def test_the_page_has_a_row_for_each_scenario_and_the_sum_of_their_clicks() -> None:
    page = (ROOT / "tests" / "chaos" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z: ]+) \| ([\d,]+) \| \d", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(SCENARIOS)
    clicks = sum(int(clicks.replace(",", "")) for _, clicks in rows)
    assert f"Of {clicks:,} clicks" in re.sub(r"\s+", " ", page)
