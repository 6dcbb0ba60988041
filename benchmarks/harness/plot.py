"""Draws the curves of a run, one picture for each, in one file; each benchmark begins a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, zip_longest
from pathlib import Path

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from benchmarks.harness.report import Curve, Result

#: Inches of one picture.
_WIDTH, _HEIGHT = 5.0, 3.5
#: Pictures beside each other.
_COLUMNS = 4
#: More points than that are drawn without markers.
_FEW = 20
#: Most numbers below a picture.
_TICKS = 6


def check(path: Path) -> None:
    """Raises click.ClickException where `draw` could not write."""
    known = Canvas().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise click.ClickException(f"{path}: {path.suffix or 'no suffix'} cannot be drawn; known: {', '.join(known)}")
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from None


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw all curves of these results, if there are any.

    Raises:
        click.ClickException: the file cannot be written.
    """
    drawn = [result for result in results if result.curves]
    if not drawn:
        return
    columns = min(_COLUMNS, max(len(result.curves) for result in drawn))
    rows = [-(-len(result.curves) // columns) for result in drawn]
    canvas = Canvas(figsize=(_WIDTH * columns, _HEIGHT * sum(rows)), layout="constrained")
    places = iter(canvas.subplots(sum(rows), columns, squeeze=False).ravel())
    for result, its in zip(drawn, rows, strict=True):
        for curve, axes in zip_longest(result.curves, islice(places, its * columns)):
            if curve is None:
                axes.set_axis_off()
            else:
                _draw(axes, f"{result.benchmark}: {curve.name}", curve)
    try:
        canvas.savefig(path, dpi=150)
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from None


def _draw(axes: Axes, title: str, curve: Curve) -> None:
    axes.plot(curve.x, curve.y, marker="o" if len(curve.x) <= _FEW else None)
    axes.set(title=title, xlabel=curve.x_label, ylabel=curve.y_label)
    axes.set_ylim(0, 1.08 * max(curve.y) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.grid(alpha=0.3)
