"""Popular items, overall and among users with the same attributes: what the profile tower has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import ConfigError
from model.arrays import DoubleArray, IdMatrix, IntVector
from model.artifact import Artifact
from model.profile.data import ProfiledUsers
from model.profile.training import first_rows
from model.serving.attributes import AttributeTable, Profile

#: Clicks of an average user that are added to those of each group; one of them is chosen on valid users.
SHRINKAGES = (0, 100, 300, 1000, 3000, 10_000, 100_000)


@dataclass(frozen=True, eq=False)
class Popularity:
    """Clicks of each item by group of users, and of all users.

    Attributes:
        names: attributes that make a group. groups: values of the attributes, as rows of the table → row of `counts`.
        counts: (G, N); overall: (N,), shares of all clicks.
    """

    names: tuple[str, ...]
    table: AttributeTable
    groups: dict[tuple[int, ...], int]
    counts: DoubleArray
    overall: DoubleArray

    @classmethod
    def count(
        cls,
        users: ProfiledUsers,
        artifact: Artifact,
        table: AttributeTable,
        names: Sequence[str],
        clicks: int | None = None,
    ) -> Popularity:
        """Count the first `clicks` clicks of each user; None = all of them.

        Raises:
            ConfigError: the tower has no such attribute, or it is a list.
        """
        known = {one.name: one.kind for one in table.attributes}
        for name in names:
            if known.get(name, "categories") == "categories":
                single = ", ".join(one for one, kind in known.items() if kind != "categories") or "none"
                raise ConfigError(f"--group {name}: no attribute with one value for each user; there are: {single}")
        keys = [_key(table, names, profile) for profile in users.profiles]
        groups = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        counts = np.zeros((len(groups), len(artifact.item_ids)))
        for key, rows in zip(keys, first_rows(users.clicks, artifact, clicks), strict=True):
            np.add.at(counts[groups[key]], rows, 1)
        total = counts.sum(axis=0)
        return cls(tuple(names), table, groups, counts, total / max(total.sum(), 1))

    def popular(self, users: int, n: int) -> IdMatrix:
        """Return the rows of the n most popular items for each of so many users, (B, n), best first."""
        return np.tile(_best(self.overall, n), (users, 1))

    def in_groups(self, profiles: Sequence[Profile], n: int, shrinkage: float) -> IdMatrix:
        """Return the rows of the n most popular items in the users' groups, (B, n), best first.

        Args:
            shrinkage: so many clicks of an average user are added to those of each group.
        """
        lists = {key: _best(self.counts[row] + shrinkage * self.overall, n) for key, row in self.groups.items()}
        overall = _best(self.overall, n)
        keys = [_key(self.table, self.names, profile) for profile in profiles]
        return np.stack([lists.get(key, overall) for key in keys])


def _best(scores: DoubleArray, n: int) -> IntVector:
    return np.argsort(-scores, kind="stable")[:n]


def _key(table: AttributeTable, names: Sequence[str], profile: Profile) -> tuple[int, ...]:
    return tuple(one.rows(profile)[0] for one in table.attributes if one.name in names)
