"""Pictures of curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.plot import check, draw
from benchmarks.harness.report import Curve, Result

CURVE = Curve("by ef", "recall@50, %", "queries/s", [90.0, 99.0], [4000.0, 2000.0])


def _result(*curves: Curve) -> Result:
    return Result("recall", "Milvus", {}, [], 0.5, 1.25, curves)


def test_curves_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "curves.svg", [_result(CURVE), _result(), _result(*5 * [CURVE])])
    assert (tmp_path / "curves.svg").read_text().count("<!-- recall@50, % -->") == 6
    draw(tmp_path / "none.png", [_result()])
    assert not (tmp_path / "none.png").exists()


def test_a_plot_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    check(tmp_path / "curves.PNG")
    with pytest.raises(BenchmarkError, match=r"curves: a file without suffix cannot be drawn; known: .*png, .*svg"):
        check(tmp_path / "curves")
    with pytest.raises(BenchmarkError, match="cannot be written: No such file"):
        check(tmp_path / "nowhere" / "curves.png")
