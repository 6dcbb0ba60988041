"""Recommend films by age, gender and occupation: python -m model.fusion.recommend -a 25-34 -g F -j programmer"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from configs.cli import Command, config_options
from configs.errors import FatalError, InputError
from configs.loader import load_fusion, load_worker
from configs.text import count
from model.fusion.artifact import FusionArtifact
from model.fusion.film_list import FilmList, read_films
from model.fusion.profiles import Profile, ProfileError, parse_age, parse_gender, parse_job
from model.fusion.towers import SCALE
from streams.milvus.index import MilvusIndex

#: Films of an answer, as published.
TOP = 5
#: Films whose vectors are computed and written together.
CHUNK = 4096
#: Seconds within which Milvus must show the films, and between two questions.
SHOWN_WITHIN_S, POLL_INTERVAL_S = 60.0, 0.05
LOAD = "load the films first: add -i (python -m model.fusion.recommend -i)"
EPILOG = """\b
Examples:
  python -m model.fusion.recommend -a 25-34 -g F -j programmer -i
  python -m model.fusion.recommend -a 0 -g 1 -j 10
  python -m model.fusion.recommend --batch - < profiles.txt

\b
The score is the predicted rating, 5 times the cosine of the user's and the film's vector: Milvus searches by inner
product, and the vectors have length 1. -i computes the films' vectors and loads them into the collection of this model
version; it is needed once for each model. An age is given as in MovieLens (1, 18, 25, 35, 45, 50, 56), in words (under
18, 18-24, 25-34, 35-44, 45-49, 50-55, 56+) or by its published number (0 to 6; but 1 is MovieLens' code of under 18);
an occupation as a number from 0 to 20 or in words; a gender as M or F, male or female, 0 or 1. A line of --batch is
"age gender job", or "age, gender, job" where a value has spaces.

\b
Exit status: 0 answered; 1 a file, a line or the artifact cannot be used; 2 a wrong attribute; 75 Milvus is unavailable;
78 a wrong setting, or the films are not loaded; 130 interrupted.
"""


def _attribute(parse: Callable[[str], int]) -> Callable[[click.Context, click.Parameter, str], int]:
    def convert(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
        try:
            return parse(text)
        except ProfileError as error:
            raise click.BadParameter(str(error)) from None

    return convert


@click.command(cls=Command, epilog=EPILOG)
@config_options(load_fusion)
@click.option("-a", "--age", default="0", show_default=True, callback=_attribute(parse_age), help="Age group.")
@click.option("-g", "--gender", default="1", show_default=True, callback=_attribute(parse_gender), help="Gender.")
@click.option("-j", "--job", default="10", show_default=True, callback=_attribute(parse_job), help="Occupation.")
@click.option("-i", "--infer", is_flag=True, help="Load the films' vectors into Milvus first.")
@click.option("--batch", type=click.File(encoding="utf-8"), help="Answer each line of a file, - for standard input.")
@click.option("--artifact", type=click.Path(path_type=Path), help="Folder of the model; default: output.folder.")
@click.option("--movies", metavar="FILE", help="Films that model.fusion.movies wrote; default: output.movies.")
@click.option("--milvus", metavar="URI", help="Address of Milvus; default: milvus.uri of configs/worker.yaml.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    age: int,
    gender: int,
    job: int,
    infer: bool,
    batch: TextIO | None,
    artifact: Path | None,
    movies: str | None,
    milvus: str | None,
) -> None:
    """Recommend five films by a user's age group, gender and occupation: rank, id, title, predicted rating."""
    given = [f"output.movies={json.dumps(movies)}"] if movies else []
    config = load_fusion(config_path, (*overrides, *given))
    settings = load_worker(None, [f"milvus.uri={json.dumps(milvus)}"] if milvus else []).milvus
    model = FusionArtifact.load(artifact or config.output.folder)
    films = read_films(config.output.movies, model.vocabulary)
    index = MilvusIndex(settings, model.model_version, model.dim, create=infer, remedy=LOAD)
    with contextlib.closing(index):
        if infer:
            load_films(index, model, films)
            click.echo(f"{count(len(films.ids), 'film')} of model {model.model_version} in Milvus", err=True)
        index.search(model.new_users([Profile(gender, age, job)]), TOP)  # the first one takes long: it is the start's
        console = Console(highlight=False)
        if batch is None:
            answer(Profile(gender, age, job), model, films, index, console)
        else:
            answer_lines(batch, model, films, index, console)


def load_films(index: MilvusIndex, model: FusionArtifact, films: FilmList) -> None:
    """Compute the films' vectors, write them, and remove all other films.

    Raises:
        TransientError: Milvus is unavailable, or does not show the films.
    """
    for begin in range(0, len(films.ids), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        index.upsert(films.ids[chunk], model.films(films.ids[chunk], films.inputs.take(chunk)))
    for ids, _ in index.rows(-1):
        index.delete(np.setdiff1d(ids, films.ids))
    index.seal()
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while (shown := index.describe().count) != len(films.ids):
        if time.monotonic() > deadline:
            raise FatalError(f"Milvus shows {shown:,} of {len(films.ids):,} films; is another program writing them?")
        time.sleep(POLL_INTERVAL_S)


def answer(profile: Profile, model: FusionArtifact, films: FilmList, index: MilvusIndex, console: Console) -> float:
    """Print the films for a profile; return the seconds from the profile to the films.

    Raises:
        FatalError: Milvus has no films.
        TransientError: Milvus is unavailable.
    """
    begin = time.perf_counter()
    ids, scores = index.search(model.new_users([profile]), TOP)
    seconds = time.perf_counter() - begin
    if not ids[0].any():
        raise FatalError(f"the collection of model {model.model_version} is empty; {LOAD}")
    table = Table(title=f"{profile} ({seconds * 1e3:.1f} ms)", title_justify="left")
    for name, side in (("rank", "right"), ("id", "right"), ("title", "left"), ("score", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for rank, (film, score) in enumerate(zip(ids[0].tolist(), scores[0].tolist(), strict=True), 1):
        if film:  # 0 = there are fewer films
            table.add_row(str(rank), str(film), films.titles.get(film, "?"), f"{SCALE * score:.3f}")
    console.print(table)
    return seconds


def answer_lines(lines: TextIO, model: FusionArtifact, films: FilmList, index: MilvusIndex, console: Console) -> None:
    """Answer each line as soon as it is there; malformed ones are reported and counted.

    Raises:
        InputError: lines were malformed. FatalError, TransientError: see `answer`.
    """
    took, malformed = [], 0
    for number, profile in _profiles(lines):
        if isinstance(profile, ProfileError):
            malformed += 1
            click.echo(f"{lines.name}, line {number}: {profile}", err=True)
        else:
            took.append(answer(profile, model, films, index, console))
    if took:
        median, most = (1e3 * float(value) for value in (np.median(took), max(took)))
        click.echo(f"{count(len(took), 'answer')}: median {median:.1f} ms, longest {most:.1f} ms", err=True)
    if malformed:
        raise InputError(f"{lines.name}: {count(malformed, 'line')} malformed")


def _profiles(lines: TextIO) -> Iterator[tuple[int, Profile | ProfileError]]:
    for number, line in enumerate(iter(lines.readline, ""), 1):
        fields = [field.strip() for field in line.split(",")] if "," in line else line.split(None, 2)
        if not fields:
            continue
        try:
            if len(fields) != 3:
                raise ProfileError(f"expected age gender job, found {line.strip()!r}")
            yield number, Profile(parse_gender(fields[1]), parse_age(fields[0]), parse_job(fields[2]))
        except ProfileError as error:
            yield number, error


if __name__ == "__main__":
    main(prog_name="python -m model.fusion.recommend")
