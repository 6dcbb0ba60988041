"""Figures as image files, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.evaluation.measure import SEEN, EvaluationError, Measured

#: Inches of one panel, and dots in an inch.
PANEL, DPI = (5.0, 4.0), 120


def plot_recall(measured: Sequence[Measured], path: Path) -> None:
    """Recall against the length of the list for the last model, and against epochs and seconds as far as known.

    Raises:
        EvaluationError: the file cannot be written.
    """
    last = measured[-1]
    by_epoch = [one for one in measured if one.epoch is not None]
    by_time = [one for one in by_epoch if one.seconds is not None]
    figure, axes = panels(1 + (len(by_epoch) > 1) + (len(by_time) > 1))
    for search, curves in last.recall_at.items():
        for seen in SEEN:
            recall = curves[seen]
            axes[0].plot(range(1, len(recall) + 1), recall, label=f"{search}, seen {seen}")
            for panel, models, times in _lines(axes[1:], by_epoch, by_time):
                panel.plot(times, [one.recall_at[search][seen][-1] for one in models], marker="o")
    n = len(last.recall_at["exact"]["kept"])
    name = "" if last.epoch is None else f" (epoch {last.epoch})"
    for panel, title in zip(axes, (f"items K{name}", "epoch", "seconds of training"), strict=False):
        panel.set(xlabel=title, ylabel="recall@K" if panel is axes[0] else f"recall@{n}", ylim=(0, None))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    axes[0].legend()
    save(figure, path)


def plot_training(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and recall of a training run against its steps.

    Args:
        lines: of its metrics, one an epoch, with `step`, `loss`, and `recall@…` where it was measured.

    Raises:
        EvaluationError: the file cannot be written.
    """
    recall = next((name for name in lines[0] if name.startswith("recall@")), None)
    names = ["loss"] if recall is None else ["loss", recall]
    figure, axes = panels(len(names))
    for panel, name in zip(axes, names, strict=True):
        panel.plot([line["step"] for line in lines], [line[name] for line in lines], marker="o", markersize=3)
        panel.set(xlabel="step", ylabel=name)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    save(figure, path)


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


def _lines(
    axes: Sequence[Axes], by_epoch: Sequence[Measured], by_time: Sequence[Measured]
) -> list[tuple[Axes, Sequence[Measured], list[float]]]:
    epochs = [float(one.epoch or 0) for one in by_epoch]
    seconds = [float(one.seconds or 0) for one in by_time]
    return list(zip(axes, (by_epoch, by_time), (epochs, seconds), strict=False))
