"""What the chaos suite calls wrong, and how it prints its figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.errors import EXIT_DEFECT, EXIT_STALLED, EXIT_TRANSIENT
from streams.tools.audit import AuditReport
from tests.chaos.fleet import Leaving
from tests.chaos.stage import KILLED, Figures, table

BALANCED = AuditReport(*[0] * len(AuditReport.__dataclass_fields__))
GOOD = Figures("kill", 1000, 0, [KILLED, EXIT_TRANSIENT], [Leaving(0, 1.25)], 3, 1, 2.5, 4.0, 0, BALANCED)


def test_kills_and_spent_retry_budgets_are_as_they_must_be() -> None:
    assert GOOD.ok
    assert GOOD.wrong == []


@pytest.mark.parametrize("status", [EXIT_DEFECT, EXIT_STALLED, -6, 0, 1])
def test_a_worker_that_ends_in_another_way_is_wrong(status: int) -> None:
    figures = replace(GOOD, ends=[KILLED, status])
    assert not figures.ok
    assert f"[{status}]" in figures.wrong[0]


@pytest.mark.parametrize("leaving", [Leaving(EXIT_DEFECT, 1.0), Leaving(-9, 1.0), Leaving(0, 5.0)])
def test_a_worker_that_is_told_to_go_goes_at_once_and_with_status_0(leaving: Leaving) -> None:
    assert not replace(GOOD, leavings=[Leaving(0, 0.1), leaving]).ok


def test_whatever_is_lost_is_wrong() -> None:
    assert not replace(GOOD, clicks_missing=1).ok
    assert not replace(GOOD, items_different=1).ok
    assert not replace(GOOD, report=replace(BALANCED, users_stale=1)).ok


def test_the_table_is_markdown_with_a_row_for_each_scenario() -> None:
    rounds = [GOOD, replace(GOOD, longest_pause=7.0, leavings=[Leaving(0, 2.0)]), replace(GOOD, scenario="zombie")]
    assert table(rounds).splitlines() == [
        "| scenario | clicks | kills | exits | repeats | out of order | pause |",
        "|---|---|---|---|---|---|---|",
        "| kill | 2,000 | 2 | 2 | 6 | 2 | 7.0 s |",
        "| zombie | 1,000 | 1 | 1 | 3 | 1 | 2.5 s |",
        "",
        "3,000 clicks in 3 scenarios, 0 of them wrong; longest from SIGTERM to exit 2.0 s",
    ]
