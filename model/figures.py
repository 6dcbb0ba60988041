"""What all figures share."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.evaluation.measure import EvaluationError

#: Inches of one panel, and dots in an inch.
PANEL, DPI = (5.0, 4.0), 120


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(PANEL[0] * number, PANEL[1]), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, number, place) for place in range(1, number + 1)]


def save(figure: Figure, path: Path) -> None:
    """Raises EvaluationError when the file cannot be written, or matplotlib does not know its suffix."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: the figure cannot be written ({error}); choose a file.png (--plot)") from None
