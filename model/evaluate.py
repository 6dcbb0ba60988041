"""Measure the quality of a model on test users, by the protocol of the published figures: python -m model.evaluate"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

if not __package__:  # started as `python model/evaluate.py`: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
from rich.console import Console

from configs.cli import Command, config_options, progress_bar
from configs.loader import load_train, load_worker
from configs.schema import TrainConfig
from configs.text import count
from model.artifact import Artifact
from model.data.clicks import Holdout
from model.data.files import DataError
from model.data.malformed import SETTING, MalformedLines
from model.data.users import read_users
from model.evaluation.measure import Index, Measurement, measure_artifact
from model.evaluation.report import document, tables
from model.evaluation.runs import kept_epochs, parse_numbers, seconds_by_epoch

#: Timeout of a request to Milvus: latency does not matter here, and milvus-lite is slow.
MILVUS_TIMEOUT_S = 60
EPILOG = """\b
Examples:
  python -m model.evaluate --artifact artifacts/latest --test test.csv
  python -m model.evaluate -c configs/mind.yaml --top-n 20,50 --json
  python -m model.evaluate --run runs/latest --epochs 5-20 --plot recall.png
  python -m model.evaluate --test test.csv --milvus http://127.0.0.1:19530

\b
Test files are in the train format (uid,item_id,order; the first 80 % of a user's clicks are history, the others
targets) or in the valid format (user_id:… hist_item:… eval_item:…). Figures go to standard output, progress to
standard error. Exit status: 0 measured; 1 a file or an artifact cannot be used; 75 Milvus is unavailable;
78 a wrong setting; 130 interrupted.
"""


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[int] | None:
    try:
        return None if value is None else parse_numbers(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=Command, epilog=EPILOG, less_memory="shorten the lists (--top-n), or give fewer test users")
@config_options(load_train)
@click.option("--artifact", type=click.Path(path_type=Path), help="Folder of the model; default: output.folder.")
@click.option("--run", type=click.Path(path_type=Path), help="Folder of a training run whose kept epochs are measured.")
@click.option("--epochs", callback=_numbers, help="Epochs of the run, such as 5-20; default: all kept ones.")
@click.option(
    "--test", "tests", multiple=True, type=click.Path(path_type=Path), help="Test file; default: data.valid_paths."
)
@click.option(
    "--top-n",
    default="20,50",
    show_default=True,
    callback=_numbers,
    help="Lengths of the lists; shorter ones are prefixes of the longest.",
)
@click.option("--milvus", metavar="URI", help="Also measure searches in this Milvus, in a temporary collection.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Plot recall against K, epochs and time.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    artifact: Path | None,
    run: Path | None,
    epochs: list[int] | None,
    tests: tuple[Path, ...],
    top_n: list[int],
    milvus: str | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure a model, or the epochs of a training run, on test users: recall, NDCG, hit rate, coverage, diversity."""
    if run is not None and artifact is not None:
        raise click.UsageError("--run and --artifact exclude each other: a run has its own models")
    if epochs is not None and run is None:
        raise click.UsageError("--epochs needs a training run: --run DIR --epochs 5-20")
    for number in (signal.SIGINT, signal.SIGTERM):  # also if a shell started this process with them ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if config_path is None and run is not None and (run / "config.yaml").is_file():
            config_path = run / "config.yaml"
        config = load_train(config_path, overrides)
        models = [(None, artifact or config.output.folder)] if run is None else kept_epochs(run, epochs)
        files = tests or config.data.valid_paths
        malformed = MalformedLines(config.data.malformed, SETTING)
        users = _read_test_users(files, malformed, config)
        seconds = {} if run is None else seconds_by_epoch(run)
        measured = [
            dataclasses.replace(one, epoch=epoch, seconds=seconds.get(epoch or 0))
            for epoch, one in measure_all(models, users, top_n, config.training.seed, milvus)
        ]
        if plot is not None:
            from model.evaluation.plots import plot_recall  # matplotlib takes a second to load

            plot_recall(measured, plot)
    except KeyboardInterrupt:
        click.echo("Interrupted; no figures.", err=True)
        raise
    if as_json:
        click.echo(json.dumps(document(measured, files, malformed, top_n, config.training.seed), indent=2))
    else:
        Console(highlight=False).print(*tables(measured, top_n), sep="\n")


def measure_all(
    models: Sequence[tuple[int | None, Path]], users: Holdout, top_n: Sequence[int], seed: int, milvus: str | None
) -> Iterator[tuple[int | None, Measurement]]:
    """Yield the epoch and the figures of each model; all are measured with the same random draws.

    Raises:
        ArtifactError, EvaluationError: a model cannot be measured.
    """
    for epoch, folder in models:
        artifact = Artifact.load(folder)
        with contextlib.ExitStack() as stack:
            index = stack.enter_context(_milvus_index(artifact, milvus)) if milvus else None
            name = artifact.model_version if epoch is None else f"epoch {epoch}"
            bar = stack.enter_context(progress_bar(len(users.history), name))
            yield epoch, measure_artifact(artifact, users, top_n, seed, index, bar.advance)


def _read_test_users(files: Sequence[Path], malformed: MalformedLines, config: TrainConfig) -> Holdout:
    if not files:
        raise DataError("no test files: give --test FILE, or list them in data.valid_paths of the file given with -c")
    users = read_users(files, malformed, config.data.order)
    click.echo(f"{count(len(users.history), 'test user')} from {', '.join(map(str, files))}", err=True)
    for skipped in malformed.skipped:
        click.echo(skipped, err=True)
    return users


def _milvus_index(artifact: Artifact, uri: str) -> AbstractContextManager[Index]:
    from streams.tools.served_index import temporary_index  # its client takes a second to load

    return temporary_index(artifact, load_worker(None, [f"milvus.uri={uri}", f"milvus.timeout={MILVUS_TIMEOUT_S}"]))


if __name__ == "__main__":
    main(prog_name="python -m model.evaluate")
