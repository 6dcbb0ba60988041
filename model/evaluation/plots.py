"""The figure of `python -m model.evaluate --plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from model.evaluation.measure import SEEN, Measurement
from model.figures import panels, save_figure


def plot_recall(measured: Sequence[Measurement], path: Path) -> None:
    """Plot recall against the length of the list for the last model, and against epochs and seconds where known.

    Raises:
        InputError: the file cannot be written.
    """
    last = measured[-1]
    by_epoch = [one for one in measured if one.epoch is not None]
    by_time = [one for one in by_epoch if one.seconds is not None]
    figure, axes = panels(1 + (len(by_epoch) > 1) + (len(by_time) > 1))
    for search, curves in last.recall_at.items():
        for seen in SEEN:
            recall = curves[seen]
            axes[0].plot(range(1, len(recall) + 1), recall, label=f"{search}, seen {seen}")
            for panel, models, times in _panels_of_models(axes[1:], by_epoch, by_time):
                panel.plot(times, [one.recall_at[search][seen][-1] for one in models], marker="o")
    n = len(last.recall_at["exact"]["kept"])
    name = "" if last.epoch is None else f" (epoch {last.epoch})"
    for panel, title in zip(axes, (f"items K{name}", "epoch", "seconds of training"), strict=False):
        panel.set(xlabel=title, ylabel="recall@K" if panel is axes[0] else f"recall@{n}", ylim=(0, None))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    axes[0].legend()
    save_figure(figure, path)


def _panels_of_models(
    axes: Sequence[Axes], by_epoch: Sequence[Measurement], by_time: Sequence[Measurement]
) -> list[tuple[Axes, Sequence[Measurement], list[float]]]:
    """Return panel, models and their x values: epochs in one panel, seconds in another."""
    epochs = [float(one.epoch or 0) for one in by_epoch]
    seconds = [float(one.seconds or 0) for one in by_time]
    return list(zip(axes, (by_epoch, by_time), (epochs, seconds), strict=False))
