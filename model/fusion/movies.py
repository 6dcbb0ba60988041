"""Write films as numbers that the model reads: python -m model.fusion.movies -f movies_origin.txt"""

from __future__ import annotations

import json
from pathlib import Path

import click

from configs.cli import Command, config_options
from configs.loader import load_fusion
from configs.text import count
from model.data.malformed import SETTING, MalformedLines
from model.fusion.artifact import FusionArtifact
from model.fusion.film_list import write_films
from model.fusion.movielens import read_film_file
from model.fusion.vocabulary import UNKNOWN

EPILOG = """\b
Examples:
  python -m model.fusion.movies -f ml-1m/movies.dat
  python -m model.fusion.movies -f movies_origin.txt --artifact artifacts/fusion --out movies_data.txt

\b
Each line of the file that is read is MovieID::Title::Genre|Genre, as in MovieLens. Each line that is written has the
film's id, the numbers of its title's words and its year, the numbers of its genres, and its title. Films that are not
in training get a vector, too, by title and genres. Exit status: 0 written; 1 a file or the artifact cannot be used;
78 a wrong setting.
"""


@click.command(cls=Command, epilog=EPILOG)
@config_options(load_fusion)
@click.option("-f", "--file", required=True, type=click.Path(path_type=Path), help="Films in the format of movies.dat.")
@click.option("--artifact", type=click.Path(path_type=Path), help="Folder of the model; default: output.folder.")
@click.option("--out", metavar="FILE", help="File to write; default: output.movies.")
def main(
    config_path: Path | None, overrides: tuple[str, ...], file: Path, artifact: Path | None, out: str | None
) -> None:
    """Write the films of a file as numbers that the model reads, for `python -m model.fusion.recommend`."""
    given = [f"output.movies={json.dumps(out)}"] if out else []
    config = load_fusion(config_path, (*overrides, *given))
    model = FusionArtifact.load(artifact or config.output.folder)
    malformed = MalformedLines(config.data.malformed, SETTING)
    films = read_film_file(file, malformed)
    write_films(config.output.movies, films, model.vocabulary)
    for skipped in malformed.skipped:
        click.echo(str(skipped), err=True)
    known = set(model.item_ids.tolist())
    new = sum(film.id not in known for film in films)
    unknown = sum(model.vocabulary.word_numbers(film.title).count(UNKNOWN) for film in films)
    click.echo(
        f"{config.output.movies}: {count(len(films), 'film')}, {new:,} of them not in training; "
        f"{count(unknown, 'word')} of titles not in the vocabulary of model {model.model_version}"
    )


if __name__ == "__main__":
    main(prog_name="python -m model.fusion.movies")
