"""Write clicks and profiles out of MovieLens-1M, for MIND and its profile tower: python -m producers.movielens"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import orjson

from configs.cli import Command
from configs.errors import InputError
from configs.text import count
from model.arrays import IntVector
from model.data.malformed import MalformedLines
from model.fusion.movielens import MovieLens, read_movielens
from model.fusion.profiles import AGES, GENDERS, JOBS

#: Names of the files that are written; with --held-out, the last three instead of the first.
PROFILES, ALL, TRAIN, VALID, TEST = "profiles.jsonl", "clicks.csv", "train.csv", "valid.csv", "test.csv"
EPILOG = f"""\b
Examples:
  python -m producers.movielens --data ml-1m --out clicks
  python -m producers.movielens --data ml-1m --held-out 0.1 --out clicks

\b
A rating of at least --liked is a click on the film; a user's clicks are in the order of their times, and equal times in
the order of the file. Profiles have user_id, gender, age and occupation, in MovieLens' words. With --held-out, the
users are divided at random, and clicks are in {TRAIN}, {VALID} and {TEST} instead of {ALL}. Generated data:
python -m producers.ratings --out generated. Exit status: 0 written; 1 a file cannot be read or written.
"""


@click.command(cls=Command, epilog=EPILOG, context_settings={"show_default": True})
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder, or zip archive, of MovieLens-1M.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--liked", default=4.0, type=click.FloatRange(0, 5), help="Lowest rating that is a click.")
@click.option(
    "--held-out", default=0.0, type=click.FloatRange(0, 0.5, max_open=True), help="Share of valid, and of test, users."
)
@click.option("--seed", default=1, type=click.IntRange(min=0), help="The same seed gives the same division of users.")
def main(data: Path, out: Path, liked: float, held_out: float, seed: int) -> None:
    """Write the clicks and the profiles of MovieLens-1M, in the formats of the other programs."""
    ratings = read_movielens(data, MalformedLines())
    clicks = clicks_of(ratings, liked)
    files = divided(len(ratings.user_ids), held_out, seed) if held_out else {ALL: np.arange(len(ratings.user_ids))}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / PROFILES).write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in profiles_of(ratings)))
        for name, users in files.items():
            kept = clicks[np.isin(ratings.user[clicks], users)]
            write_clicks(ratings, kept, out / name)
            click.echo(f"{out / name}: {count(len(kept), 'click')} of {count(len(users), 'user')}", err=True)
    except OSError as error:
        raise InputError(f"{error.filename or out}: cannot be written: {error.strerror}") from None


def clicks_of(ratings: MovieLens, liked: float) -> IntVector:
    """Return the positions of the ratings that are clicks, by user and time."""
    found = np.flatnonzero(ratings.rating >= liked)
    return found[np.lexsort((ratings.time[found], ratings.user[found]))]  # stable


def profiles_of(ratings: MovieLens) -> list[dict[str, int | str]]:
    """Return a profile of each user."""
    return [
        {"user_id": user, "gender": GENDERS[one.gender], "age": AGES[one.age], "occupation": JOBS[one.job]}
        for user, one in zip(ratings.user_ids.tolist(), ratings.profiles, strict=True)
    ]


def divided(users: int, share: float, seed: int) -> dict[str, IntVector]:
    """Return file → positions of its users; `share` of them are valid users, and as many test users."""
    shuffled = np.random.default_rng(seed).permutation(users)
    held = round(share * users)
    return {TRAIN: shuffled[2 * held :], VALID: shuffled[:held], TEST: shuffled[held : 2 * held]}


def write_clicks(ratings: MovieLens, clicks: IntVector, path: Path) -> None:
    """Write lines ``uid,item_id,order``; the order is the rank among the user's clicks.

    Raises:
        OSError: the file cannot be written.
    """
    film_ids = np.array([film.id for film in ratings.films], np.int64)
    user = ratings.user[clicks]
    rank = np.arange(len(clicks)) - np.searchsorted(user, user)
    columns = (ratings.user_ids[user].tolist(), film_ids[ratings.film[clicks]].tolist(), rank.tolist())
    path.write_text("".join(f"{u},{i},{o}\n" for u, i, o in zip(*columns, strict=True)), encoding="utf-8")


if __name__ == "__main__":
    main(prog_name="python -m producers.movielens")
