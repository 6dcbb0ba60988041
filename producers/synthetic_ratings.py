"""Synthetic ratings with a known structure: what users of a kind like, by genre, and how good each film is.

How a rating is generated:

1. A film has a quality and one to three genres, and its title has two words of one of them, so that titles tell
   something, too. Films are as popular as 1 / (r + 10), in random order.
2. A user has a gender, an age group and an occupation; each of them has a liking for every genre, drawn once. A user's
   own liking and own level are added.
3. The rating is 3.5 + quality + level + the mean liking for the film's genres + noise, rounded, from 1 to 5.
4. Users rate different films, drawn by popularity, one every minute from a random day on.

`Structure.expected` is the rating before noise and rounding, so that a model's error can be compared with the best one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.arrays import DoubleArray, FloatMatrix, IdMatrix, IntVector
from model.fusion.movielens import Film, MovieLens
from model.fusion.profiles import AGES, GENDERS, JOBS, Profile

#: Genre → words of its titles, which are Latin-1, as MovieLens' are.
GENRES = {
    "Action": "Chase Strike Storm Fury Impact",
    "Comedy": "Uncle Wedding Café Monkey Holiday",
    "Crime": "Heist Alibi Ledger Informer Verdict",
    "Drama": "Harbour Winter Orchard Silence Señora",
    "Fantasy": "Dragon Wizard Mirror Kingdom Fée",
    "Horror": "Crypt Scream Shadow Cellar Nightmare",
    "Musical": "Ballad Cabaret Rhythm Chorus Opéra",
    "Romance": "Kiss Paris Bouquet Waltz Liebe",
    "Sci-Fi": "Orbit Android Nebula Signal Colony",
    "Western": "Saddle Canyon Outlaw Ranch Mesa",
}
MEAN = 3.5
#: Standard deviations: of a film's quality, a user's level, the liking of a kind of users and of a user, the noise.
QUALITY, LEVEL, KIND, OWN, NOISE = 0.45, 0.3, 0.5, 0.4, 0.7
#: Fewest ratings of a user, as in MovieLens.
MIN_RATINGS = 20
#: 2000-05-01 00:00 UTC in seconds since 1970, and the days within which users start.
FIRST_START_S, START_DAYS = 957_139_200, 300


@dataclass(frozen=True, slots=True)
class RatingsShape:
    """Sizes of a synthetic data set.

    Raises:
        ValueError: the sizes contradict each other.
    """

    users: int
    films: int
    ratings: int

    def __post_init__(self) -> None:
        if min(self.users, self.films) < 1:
            raise ValueError("users and films must be at least 1")
        if self.ratings < self.users:
            raise ValueError(f"{self.ratings} ratings are not enough for {self.users} users: each has at least one")
        if self.ratings * 2 > self.users * self.films:
            raise ValueError(f"{self.users} users rate at most half of {self.films} films: use fewer ratings")


@dataclass(frozen=True, eq=False)
class Structure:
    """Numbers behind the ratings: quality (N,), level (U,), liking (U, G), and the films' shares of genres (N, G)."""

    quality: DoubleArray
    level: DoubleArray
    liking: DoubleArray
    genres: FloatMatrix

    def expected(self, user: IntVector, film: IntVector) -> DoubleArray:
        """Return ratings before noise and rounding, (n,), of users and films by position."""
        liked = np.einsum("ng,ng->n", self.liking[user], self.genres[film])
        return np.asarray(MEAN + self.quality[film] + self.level[user] + liked, np.float64)


def generate_ratings(shape: RatingsShape, seed: int = 0) -> tuple[MovieLens, Structure]:
    """Generate ratings, the same for the same arguments, and what they were drawn from."""
    rng = np.random.default_rng(seed)
    films, shares = _films(shape.films, rng)
    attributes = np.stack([rng.integers(len(of), size=shape.users) for of in (GENDERS, AGES, JOBS)], axis=1)
    liking = rng.normal(0, OWN, (shape.users, len(GENRES)))
    for column, of in enumerate((GENDERS, AGES, JOBS)):
        liking += rng.normal(0, KIND, (len(of), len(GENRES)))[attributes[:, column]]
    structure = Structure(rng.normal(0, QUALITY, shape.films), rng.normal(0, LEVEL, shape.users), liking, shares)

    counts = _counts(shape, rng)
    popularity = rng.permutation(1 / (np.arange(shape.films) + 10))
    user = np.repeat(np.arange(shape.users), counts)
    film = np.concatenate(
        [rng.choice(shape.films, n, replace=False, p=popularity / popularity.sum()) for n in counts.tolist()]
    )
    noisy = structure.expected(user, film) + rng.normal(0, NOISE, len(user))
    first = FIRST_START_S + rng.integers(0, START_DAYS * 86_400, size=shape.users)
    begin = np.cumsum(counts) - counts
    return (
        MovieLens(
            user_ids=np.arange(1, shape.users + 1),
            profiles=[Profile(*row) for row in attributes.tolist()],
            films=films,
            user=user,
            film=film,
            rating=np.clip(np.rint(noisy), 1, 5).astype(np.float32),
            time=first[user] + 60 * (np.arange(len(user)) - begin[user]),
        ),
        structure,
    )


def _films(number: int, rng: np.random.Generator) -> tuple[list[Film], FloatMatrix]:
    """Return films and the share of each genre in each of them, (N, G)."""
    names, films = list(GENRES), []
    shares = np.zeros((number, len(names)), np.float32)
    for position in range(number):
        chosen: IdMatrix = rng.permutation(len(names))[: rng.integers(1, 4)]
        shares[position, chosen] = 1 / len(chosen)
        words = rng.permutation(GENRES[names[chosen[0]]].split())[:2]
        title = f"{' '.join(words)} {position + 1} ({rng.integers(1930, 2001)})"
        films.append(Film(position + 1, title, tuple(names[genre] for genre in sorted(chosen.tolist()))))
    return films, shares


def _counts(shape: RatingsShape, rng: np.random.Generator) -> IntVector:
    """Return the number of ratings of each user, (U,): no user rates more than half of the films."""
    least = min(MIN_RATINGS, shape.ratings // shape.users)
    activity = rng.pareto(2.0, shape.users) + 0.1
    counts = least + rng.multinomial(shape.ratings - least * shape.users, activity / activity.sum())
    most = shape.films // 2 + 1
    while (surplus := int(np.maximum(counts - most, 0).sum())) > 0:
        counts = np.minimum(counts, most)
        open_for_more = np.flatnonzero(counts < most)
        counts += np.bincount(rng.choice(open_for_more, surplus), minlength=shape.users)
    return counts
