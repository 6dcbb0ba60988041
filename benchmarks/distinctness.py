"""Measure recall@n by distinctness of interests, on one trained model: python -m benchmarks.distinctness --help

Residual, temperature and fusion are changed after training, so each point of a curve costs one evaluation. They do not
affect training with `loss.readout: mean`; any other model was trained for one of the points.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from matplotlib.axes import Axes

from configs.cli import Command
from model.artifact import Artifact
from model.data.users import read_users
from model.evaluation.measure import measure_encoder
from model.figures import panels, save_figure
from model.serving.encoder import Encoder, Routing

#: With the last one, the interests differ by a hundredth: practically a single vector.
RESIDUALS = (0.0, 0.2, 0.4, 0.7, 1.0, 2.0, 100.0)
#: (routing temperature, fusion) of each curve.
SERIES = ((0.2, 0.0), (0.2, 0.5), (0.5, 0.5))
EPILOG = """\b
Example:
  python -m benchmarks.distinctness --artifact artifacts/latest --test valid.csv --plot distinctness.png
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--artifact", "folder", required=True, type=click.Path(path_type=Path), help="Folder of a trained model.")
@click.option(
    "--test",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Test file.",
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the curves into this file.")
def main(folder: Path, paths: tuple[Path, ...], plot: Path | None) -> None:
    """Measure a model with other residuals, routing temperatures and fusions than its own."""
    artifact = Artifact.load(folder)
    users = read_users(paths)
    figure, axes = panels(1)
    click.echo("temperature  fusion  residual  cosine  recall@20  recall@50  hit rate@50  NDCG@50")
    for temperature, fusion in SERIES:
        points = []
        for residual in RESIDUALS:
            routing = Routing.from_dict(artifact.encoder)
            routing = dataclasses.replace(routing, temperature=temperature, residual=residual, fusion=fusion)
            encoder = Encoder(artifact.weights, routing)
            fifty, twenty = (
                measure_encoder(encoder, artifact.item_ids, artifact.item_vectors, users, n) for n in (50, 20)
            )
            recall, cosine = 100 * fifty["recall@50"], fifty["interest_cosine"]
            points.append((cosine, recall))
            ranks = [
                100 * value for value in (twenty["recall@20"], recall / 100, fifty["hit_rate@50"], fifty["ndcg@50"])
            ]
            click.echo(
                f"{temperature:11g}  {fusion:6g}  {residual:8g}  {cosine:6.3f}  "
                + "  ".join(f"{rank:{width}.2f}" for rank, width in zip(ranks, (9, 9, 11, 7), strict=True))
            )
        _draw(axes[0], points, f"routing temperature {temperature:g}, fusion {fusion:g}")
    if plot is not None:
        axes[0].legend()
        save_figure(figure, plot)


def _draw(axes: Axes, points: list[tuple[float, float]], label: str) -> None:
    axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel="mean cosine of a user's interests", ylabel="recall@50, %")
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.distinctness")
