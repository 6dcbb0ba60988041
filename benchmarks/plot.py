"""Draws the curves of a run, one picture for each, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure as Canvas

from benchmarks.report import Result

#: Inches of one picture.
_WIDTH, _HEIGHT = 5.0, 3.5
#: Pictures beside each other.
_COLUMNS = 4
#: More points than that are drawn without markers.
_FEW = 20


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw all curves of these results.

    Raises:
        click.ClickException: there are none, or the file cannot be written.
    """
    curves = [(result.benchmark, curve) for result in results for curve in result.curves]
    if not curves:
        raise click.ClickException(
            "--plot: none of these benchmarks has a curve; pressure, recall and scaling have some"
        )
    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    canvas = Canvas(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
    places = canvas.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(curves) :]:
        axes.set_axis_off()
    for axes, (benchmark, curve) in zip(places, curves, strict=False):
        axes.plot(curve.x, curve.y, marker="o" if len(curve.x) <= _FEW else None)
        axes.set(title=f"{benchmark}: {curve.name}", xlabel=curve.x_label, ylabel=curve.y_label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    try:
        canvas.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: a suffix that it does not know
        raise click.ClickException(f"{path}: cannot be written: {error}") from None
