"""Read profiles, join them with clicks, and learn the values of their attributes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from configs.errors import ConfigError
from configs.schema import ProfileAttribute, ProfileConfig
from model.arrays import IntVector
from model.artifact import Artifact
from model.data.clicks import Clicks, read_clicks, split_users
from model.data.files import UNDECODED, DataError, PathName, lines, user_id
from model.data.malformed import MalformedLines
from model.serving.attributes import Attribute, Profile, parse_categories, parse_number

#: Key of the user's id in a profile.
USER = "user_id"


class ProfiledUsers(NamedTuple):
    """U users whose profiles are known: their profiles, and their clicks with item ids."""

    profiles: list[Profile]
    clicks: Clicks

    def take(self, index: IntVector) -> ProfiledUsers:
        """Return the users at these indices, in this order."""
        return ProfiledUsers([self.profiles[user] for user in index.tolist()], self.clicks.take(index))


def settings_of(
    artifact: str | None, clicks: tuple[str, ...], valid: tuple[str, ...], profiles: tuple[str, ...]
) -> list[str]:
    """Return the options of the command line as settings."""
    values = {
        "model.artifact": artifact,
        "data.clicks": clicks,
        "data.valid_clicks": valid,
        "data.profiles": profiles,
    }
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value]


class UserGroups(NamedTuple):
    """Users to train on, and users on whom choices are made."""

    train: ProfiledUsers
    valid: ProfiledUsers


def read_groups(config: ProfileConfig, profiles: Mapping[str, Profile], malformed: MalformedLines) -> UserGroups:
    """Read the click files of the configuration; without valid ones, a share of the users is held out.

    Raises:
        ConfigError: no click files are given. DataError: they cannot be read, or no user of them has a profile.
    """
    data = config.data
    if not data.clicks:
        raise ConfigError("data.clicks: no click files: give those that the MIND model was trained on (--clicks FILE)")
    train = read_clicks(data.clicks, malformed, data.order)
    if data.valid_clicks:
        valid = read_clicks(data.valid_clicks, malformed, data.order)
    else:
        train, valid = split_users(train, data.valid_fraction, np.random.default_rng(config.training.seed))
    return UserGroups(with_profiles(train, profiles), with_profiles(valid, profiles))


def read_profiles(
    paths: Iterable[PathName], attributes: Sequence[ProfileAttribute | Attribute], malformed: MalformedLines
) -> dict[str, Profile]:
    """Read files of JSON lines: user id as text → profile. Of several lines of a user, the last one counts.

    Raises:
        DataError: a file cannot be read, has no profile, or a line is malformed and `malformed` does not skip it.
    """
    found: dict[str, Profile] = {}
    paths = list(paths)
    for path in paths:
        for number, line in lines(path, "replace"):
            malformed.add_lines(path, 1)
            try:
                user, profile = parse_profile(line)
                for attribute in attributes:
                    check_value(attribute, profile.get(attribute.name))
            except ValueError as error:
                malformed.skip(path, number, error)
                continue
            found[user] = profile
    if not found:
        names = ", ".join(map(str, paths)) or "no files given"
        raise DataError(f'no profiles: {names}; lines are JSON objects such as {{"{USER}": 7, "age": 35}} (--profiles)')
    return found


def parse_profile(line: str) -> tuple[str, Profile]:
    """Parse a line into user id, as text, and profile.

    Raises:
        ValueError: the line is no JSON object with a user id.
    """
    if UNDECODED in line:
        raise ValueError("not UTF-8")
    try:
        profile = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f'expected a JSON object such as {{"{USER}": 7}}, found no JSON') from None
    user = profile.get(USER) if isinstance(profile, dict) else None
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise ValueError(f'expected a JSON object with a text or a whole number as "{USER}"')
    return user_id(str(user)), profile


def check_value(attribute: ProfileAttribute | Attribute, value: Any) -> None:
    """Raise ValueError if a profile's value is of another kind than the attribute; None is of every kind."""
    if value is None:
        return
    if attribute.kind == "number":
        parse_number(attribute.name, value)
    else:
        parse_categories(attribute.name, attribute.kind, value)


def with_profiles(clicks: Clicks, profiles: Mapping[str, Profile]) -> ProfiledUsers:
    """Return the users that have a profile.

    Raises:
        DataError: none of them has one.
    """
    names = [str(user) for user in clicks.users.tolist()]
    known = np.array([user for user, name in enumerate(names) if name in profiles], np.int64)
    if not len(known):
        raise DataError(f"no user with clicks, such as {', '.join(names[:3])}, has a profile: compare the user ids")
    return ProfiledUsers([profiles[names[user]] for user in known.tolist()], clicks.take(known))


def known_users(users: ProfiledUsers, artifact: Artifact) -> ProfiledUsers:
    """Return the users with a click on an item that the model knows."""
    known = np.concatenate([[0], np.cumsum(artifact.rows(users.clicks.items) >= 0)])[users.clicks.offsets]
    return users.take(np.flatnonzero(np.diff(known)))


def learn_attributes(
    settings: Sequence[ProfileAttribute], profiles: Sequence[Profile], min_users: int
) -> list[Attribute]:
    """Return the attributes with the values that at least `min_users` of the profiles have, in alphabetical order."""
    return [_learned(one, [profile.get(one.name) for profile in profiles], min_users) for one in settings]


def _learned(setting: ProfileAttribute, values: list[Any], min_users: int) -> Attribute:
    given = [value for value in values if value is not None]
    if setting.kind == "number":
        numbers = [parse_number(setting.name, value) for value in given]
        return Attribute(setting.name, setting.kind, edges=_edges(setting, numbers))
    users = Counter(text for value in given for text in parse_categories(setting.name, setting.kind, value))
    known = sorted(text for text, number in users.items() if number >= min_users)
    return Attribute(setting.name, setting.kind, values=tuple(known))


def _edges(setting: ProfileAttribute, numbers: list[float]) -> tuple[float, ...]:
    if isinstance(setting.bins, tuple):
        return setting.bins
    assert setting.bins is not None  # checked by the settings
    if not numbers:
        return ()
    inner = np.quantile(numbers, np.arange(1, setting.bins) / setting.bins, method="higher")
    return tuple(float(edge) for edge in np.unique(inner) if edge > min(numbers))
