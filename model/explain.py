"""Explain one user: the clicks, the interests that they feed, the recalled items: python -m model.explain"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as `python model/explain.py`: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
import numpy as np
from rich.console import Console

from configs.cli import Command, configured
from configs.loader import load_train
from configs.schema import TrainConfig
from model.arrays import IdVector
from model.artifact import Artifact
from model.data.clicks import UserVector, hold_out, is_valid_format, read_clicks, read_holdout
from model.data.files import DataError
from model.data.malformed import SETTING, MalformedLines
from model.data.reader import Order
from model.explanation.explain import explain
from model.explanation.names import read_names
from model.explanation.text import document, tables

#: Number of users that the error message lists if the wanted one does not exist.
USERS_LISTED = 5
#: Longer rows are hard to follow.
MAX_TABLE_WIDTH_CHARACTERS = 120
EPILOG = """\b
Examples:
  python -m model.explain --user 42 --artifact artifacts/latest --clicks clicks.txt
  python -m model.explain --user 42 -c configs/mind.yaml --hold-out --unseen
  python -m model.explain --user 42 --clicks test.txt --names items.csv --plot user-42.png

\b
Click files are in the train format (uid,item_id,order: all clicks are history, unless --hold-out is given) or in the
valid format (user_id:… hist_item:… eval_item:…: the eval_items were clicked next). Names are CSV, in UTF-8:
item_id,name or item_id,name,category; a header line is skipped. Exit status: 0 explained; 1 a file or the
user cannot be used; 78 a wrong setting.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--user", required=True, help="Id of the user, as in the click files.")
@configured(load_train)
@click.option("--artifact", type=click.Path(path_type=Path), help="Folder of the model; default: output.folder.")
@click.option(
    "--clicks",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Click file; repeatable. Default: data.valid_paths, or else data.paths.",
)
@click.option("--hold-out", "held", is_flag=True, help="Hold out the last 20 % of the clicks as clicked next.")
@click.option("--top-n", "n", default=10, show_default=True, type=click.IntRange(1, 1000), help="Length of the lists.")
@click.option("--unseen", is_flag=True, help="Exclude items of the history, as the worker does by default.")
@click.option("--names", "names_file", type=click.Path(path_type=Path), help="Names of items, CSV; .gz and .xz, too.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the explanation into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(
    config: TrainConfig,
    user: str,
    artifact: Path | None,
    files: tuple[Path, ...],
    held: bool,
    n: int,
    unseen: bool,
    names_file: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Explain one user's recommendations: which clicks feed which interest, and what each interest recalls."""
    model = Artifact.load(artifact or config.output.folder)
    names = read_names(names_file, "--names") if names_file else {}
    clicks = files or config.data.valid_paths or config.data.paths
    malformed = MalformedLines(config.data.malformed, SETTING)
    history, targets = read_user(clicks, user.strip(), malformed, config.data.order, held=held)
    for skipped in malformed.skipped:
        click.echo(skipped, err=True)
    explanation = explain(model, user.strip(), history, targets, n, unseen=unseen)
    if plot is not None:
        from model.explanation.picture import plot_explanation  # matplotlib takes a second to load

        plot_explanation(explanation, names, plot)
    if as_json:
        figures = document(explanation, names) | {"skipped": malformed.figures()}
        click.echo(json.dumps(figures, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        console.print(*tables(explanation, names), sep="\n", width=min(console.width, MAX_TABLE_WIDTH_CHARACTERS))


def read_user(
    paths: Sequence[Path], user: str, malformed: MalformedLines, order: Order = "auto", *, held: bool
) -> tuple[IdVector, IdVector]:
    """Read a user's history, (H,) item ids, and the items clicked next, (T,), each oldest first.

    Args:
        held: hold out the last 20 % of the clicks in the train format, and return them as clicked next.

    Raises:
        DataError: a file cannot be read, the formats are mixed, or the files do not contain the user.
    """
    if not paths:
        raise DataError(
            "no click files: give --clicks FILE, or list them in data.valid_paths of the file given with -c"
        )
    formats = {is_valid_format(path) for path in paths}
    if len(formats) > 1:
        raise DataError("click files in both formats: give only those that contain the user (--clicks)")
    if formats == {True}:
        if held:
            raise DataError("--hold-out is for the train format; these files already contain what was clicked next")
        users = read_holdout(paths, malformed)
        index = _index_of_user(users.history.users, user, paths)
        return users.history.items_of(index), users.targets.items_of(index)
    clicks = read_clicks(paths, malformed, order)
    index = _index_of_user(clicks.users, user, paths)
    if not held:
        return clicks.items_of(index), np.empty(0, np.int64)
    if clicks.lengths[index] < 2:
        raise DataError(f"user {user} has one click, so none can be held out; omit --hold-out")
    history, targets = hold_out(clicks.take(np.array([index])))
    return history.items_of(0), targets.items_of(0)


def _index_of_user(users: UserVector, user: str, paths: Sequence[Path]) -> int:
    texts = list(map(str, users.tolist()))
    if user in texts:
        return texts.index(user)
    where = ", ".join(map(str, paths))
    if not texts:
        raise DataError(f"{where}: no users in the files; choose other click files (--clicks)")
    close = difflib.get_close_matches(user, texts, USERS_LISTED)
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else f"there are {len(texts):,}: {', '.join(texts[:USERS_LISTED])} …"
    )
    raise DataError(f"{where}: no user {user!r}; {hint}")


if __name__ == "__main__":
    main(prog_name="python -m model.explain")
