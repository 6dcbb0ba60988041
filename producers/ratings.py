"""Generate ratings in the format of MovieLens-1M, for the fusion model: python -m producers.ratings --out DIR"""

from __future__ import annotations

from pathlib import Path

import click

from configs.cli import Command
from configs.errors import InputError
from configs.text import count
from model.fusion.movielens import MovieLens
from model.fusion.profiles import AGE_CODES, GENDER_CODES
from producers.synthetic_ratings import RatingsShape, generate_ratings

EPILOG = """\b
Examples:
  python -m producers.ratings --out generated
  python -m producers.ratings --users 500 --films 200 --ratings 20000 --seed 7 --out generated
"""


@click.command(cls=Command, epilog=EPILOG, context_settings={"show_default": True})
@click.option("--users", default=2_000, help="Number of users.")
@click.option("--films", default=800, help="Number of films.")
@click.option("--ratings", default=100_000, help="Number of ratings.")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="The same seed gives the same files.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write users, films, ratings to.")
def main(users: int, films: int, ratings: int, seed: int, out: Path) -> None:
    """Generate users.dat, movies.dat and ratings.dat: what users like depends on gender, age and occupation."""
    try:
        shape = RatingsShape(users, films, ratings)
    except ValueError as error:
        raise InputError(str(error)) from None
    data, _ = generate_ratings(shape, seed)
    try:
        write_movielens(data, out)
    except OSError as error:
        raise InputError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    click.echo(f"{out}: {count(len(data.rating), 'rating')} of {films:,} films by {users:,} users", err=True)


def write_movielens(data: MovieLens, folder: Path) -> None:
    """Write the three files, in Latin-1 as MovieLens' are.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    users = [
        f"{user}::{GENDER_CODES[profile.gender]}::{AGE_CODES[profile.age]}::{profile.job}::00000"
        for user, profile in zip(data.user_ids.tolist(), data.profiles, strict=True)
    ]
    films = [f"{film.id}::{film.title}::{'|'.join(film.genres)}" for film in data.films]
    ids = [film.id for film in data.films]
    columns = (data.user_ids[data.user].tolist(), data.film.tolist(), data.rating.tolist(), data.time.tolist())
    ratings = [f"{user}::{ids[film]}::{rating:g}::{time}" for user, film, rating, time in zip(*columns, strict=True)]
    for name, lines in (("users", users), ("movies", films), ("ratings", ratings)):
        (folder / f"{name}.dat").write_text("".join(f"{line}\n" for line in lines), encoding="latin-1")


if __name__ == "__main__":
    main(prog_name="python -m producers.ratings")
