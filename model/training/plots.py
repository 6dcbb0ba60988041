"""The figure of a training run, training.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from model.figures import panels, save_figure


def plot_training(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot loss and recall of a training run against its steps.

    Args:
        lines: metrics of each epoch, with `step`, `loss`, and `recall@…` if it was measured.

    Raises:
        InputError: the file cannot be written.
    """
    recall = next((name for name in lines[0] if name.startswith("recall@")), None)
    names = ["loss"] if recall is None else ["loss", recall]
    figure, axes = panels(len(names))
    for panel, name in zip(axes, names, strict=True):
        panel.plot([line["step"] for line in lines], [line[name] for line in lines], marker="o", markersize=3)
        panel.set(xlabel="step", ylabel=name)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    save_figure(figure, path)
