"""Figures as image files, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from configs.errors import InputError

#: Width and height of one panel in inches, and dots per inch.
PANEL_INCHES, DPI = (5.0, 4.0), 120


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `number` panels side by side."""
    figure = Figure(figsize=(PANEL_INCHES[0] * number, PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, number, position) for position in range(1, number + 1)]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure into a file whose suffix decides the format; missing folders are created.

    Raises:
        InputError: the file cannot be written, or matplotlib does not know its suffix.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the figure cannot be written ({error}); check its folder, and that its name ends in .png"
        ) from None
