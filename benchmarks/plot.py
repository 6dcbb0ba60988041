"""Draws the curves of a run, one picture for each, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure as Canvas

from benchmarks.report import Result

#: Inches of one picture.
_WIDTH, _HEIGHT = 5.0, 3.5
#: More points than that are drawn without markers.
_FEW = 20


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw all curves of these results.

    Raises:
        click.ClickException: there are none, or the file cannot be written.
    """
    curves = [(result.benchmark, curve) for result in results for curve in result.curves]
    if not curves:
        raise click.ClickException("--plot: none of these benchmarks has a curve; recall and pressure have some")
    canvas = Canvas(figsize=(_WIDTH * len(curves), _HEIGHT), layout="constrained")
    for axes, (benchmark, curve) in zip(canvas.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        axes.plot(curve.x, curve.y, marker="o" if len(curve.x) <= _FEW else None)
        axes.set(title=f"{benchmark}: {curve.name}", xlabel=curve.x_label, ylabel=curve.y_label)
        axes.grid(alpha=0.3)
    try:
        canvas.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: a suffix that it does not know
        raise click.ClickException(f"{path}: cannot be written: {error}") from None
