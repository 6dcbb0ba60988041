"""The short scenarios of the chaos suite, in random order; `make chaos` plays all, with long outages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.figures import table
from tests.chaos.rounds import play
from tests.chaos.scenarios import SHORT
from tests.chaos.servers import Servers, servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("chaos")) as started:
        yield started


def test_nothing_is_lost_or_duplicated(tmp_path: Path, running: Servers) -> None:
    figures = play(running, tmp_path / "round", seed=7, names=SHORT, short=True)
    print(table(figures))
    assert [(f.scenario, f.wrong) for f in figures if not f.ok] == []
    assert len(figures) == len(SHORT)
    assert sum(len(f.ends) for f in figures) >= 3, "no worker was killed"


def test_the_suite_detects_a_removed_fence(tmp_path: Path, running: Servers) -> None:
    (figures,) = play(running, tmp_path / "round", 7, ("kill: stored",), short=True, sabotage="no fence", timeout_s=30)
    assert figures.report.histories_different > 0
