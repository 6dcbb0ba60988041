"""Plots of the curves of a run, all in one file; each benchmark begins a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, zip_longest
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import Curve, Result

#: Size of one plot in inches.
_WIDTH_IN, _HEIGHT_IN = 5.0, 3.5
#: Plots in a row.
_COLUMNS = 4
#: Curves with more points have no markers.
_MAX_MARKERS = 20
#: Largest number of ticks on the x axis.
_TICKS = 6


def check(path: Path) -> None:
    """Raise `BenchmarkError` if `draw` could not write this file."""
    known = Canvas().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise BenchmarkError(
            f"{path}: {path.suffix or 'a file without suffix'} cannot be drawn; known: {', '.join(known)}"
        )
    try:
        path.open("ab").close()
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}") from None


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw the curves of all results, if there are any.

    Raises:
        BenchmarkError: the file cannot be written.
    """
    drawn = [result for result in results if result.curves]
    if not drawn:
        return
    columns = min(_COLUMNS, max(len(result.curves) for result in drawn))
    rows = [-(-len(result.curves) // columns) for result in drawn]
    canvas = Canvas(figsize=(_WIDTH_IN * columns, _HEIGHT_IN * sum(rows)), layout="constrained")
    cells = iter(canvas.subplots(sum(rows), columns, squeeze=False).ravel())
    for result, n in zip(drawn, rows, strict=True):
        for curve, axes in zip_longest(result.curves, islice(cells, n * columns)):
            if curve is None:
                axes.set_axis_off()
            else:
                _draw(axes, f"{result.benchmark}: {curve.name}", curve)
    try:
        canvas.savefig(path, dpi=150)
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}") from None


def _draw(axes: Axes, title: str, curve: Curve) -> None:
    axes.plot(curve.x, curve.y, marker="o" if len(curve.x) <= _MAX_MARKERS else None)
    axes.set(title=title, xlabel=curve.x_label, ylabel=curve.y_label)
    axes.set_ylim(0, 1.08 * max(curve.y) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.grid(alpha=0.3)
