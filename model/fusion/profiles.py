"""Attributes of a user as MovieLens-1M has them: gender, age group, occupation; their codes, words and positions.

A position counts from 0 in the order of MovieLens, and is the row of an embedding. The published program takes
positions as arguments, MovieLens' files have codes; they differ for ages only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from configs.errors import InputError

#: Position → words.
GENDERS = ("male", "female")
AGES = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
JOBS = (
    "other or not specified",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
#: Position → code in users.dat; an occupation's code is its position.
GENDER_CODES = ("M", "F")
AGE_CODES = (1, 18, 25, 35, 45, 50, 56)


class ProfileError(InputError):
    """An attribute that MovieLens does not have. The message lists those that it has."""


class Profile(NamedTuple):
    """Positions of a user's gender, age group and occupation."""

    gender: int
    age: int
    job: int

    def __str__(self) -> str:
        return f"{GENDERS[self.gender]}, {AGES[self.age]}, {JOBS[self.job]}"


def parse_gender(text: str) -> int:
    """Parse M, male or the published 0, F, female or the published 1.

    Raises:
        ProfileError: it is none of them.
    """
    return _find("gender", text, {"m": 0, "male": 0, "0": 0, "f": 1, "female": 1, "1": 1}, _listed(GENDERS, "MF"))


def parse_age(text: str) -> int:
    """Parse MovieLens' code of an age group, its words, or, where it is no code, its published position.

    So 1 is "under 18", as in users.dat; in the published program it is "18-24".

    Raises:
        ProfileError: it is none of them.
    """
    known = {str(position): position for position in range(len(AGES))}
    known |= {str(code): position for position, code in enumerate(AGE_CODES)}
    known |= {words: position for position, words in enumerate(AGES)}
    return _find("age", text, known, _listed(AGES, AGE_CODES))


def parse_job(text: str) -> int:
    """Parse MovieLens' code of an occupation, its words, or one side of its words' slash.

    Raises:
        ProfileError: it is none of them.
    """
    known = {"other": 0, "not specified": 0}
    for position, words in enumerate(JOBS):
        known |= dict.fromkeys([str(position), words.lower(), *words.lower().split("/")], position)
    return _find("job", text, known, _listed(JOBS, range(len(JOBS))))


def _find(kind: str, text: str, known: Mapping[str, int], allowed: str) -> int:
    if (position := known.get(" ".join(text.lower().split()))) is None:
        raise ProfileError(f"there is no {kind} {text!r}; allowed, as code or in words: {allowed}")
    return position


def _listed(words: tuple[str, ...], codes: object) -> str:
    return ", ".join(f"{code} ({name})" for code, name in zip(codes, words, strict=True))  # type: ignore[call-overload]
