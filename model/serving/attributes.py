"""Attributes of users as rows of one table of embeddings. Training and serving share this definition.

An attribute has a row for an unknown value, its first one, and a row for each value that it had in training. A value
that is missing, null, or was not seen in training is unknown.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from model.arrays import FloatMatrix, IdMatrix, IntVector

Kind = Literal["category", "categories", "number"]
#: Profile of a user: attribute → value, from JSON; other keys are ignored.
Profile = Mapping[str, Any]


@dataclass(frozen=True)
class Attribute:
    """One attribute and its known values.

    Attributes:
        kind: "category" = a text, whole number or truth value; "categories" = a list of them; "number".
        values: known categories, in the order of their rows.
        edges: lower ends of all bins of numbers but the first, ascending.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Attribute:
        """Return what `to_dict` described; KeyError if it described something else."""
        return cls(stored["name"], stored["kind"], tuple(stored["values"]), tuple(stored["edges"]))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"name": self.name, "kind": self.kind, "values": list(self.values), "edges": list(self.edges)}

    @property
    def size(self) -> int:
        """Number of rows."""
        return 1 + (len(self.edges) + 1 if self.kind == "number" else len(self.values))

    def rows(self, profile: Profile) -> list[int]:
        """Return the rows of the profile's value, counted from the attribute's first one; [0] = unknown.

        Raises:
            ValueError: the value is of another kind.
        """
        value = profile.get(self.name)
        if value is None:
            return [0]
        if self.kind == "number":
            return [1 + bisect_right(self.edges, parse_number(self.name, value))]
        known = self._row_by_value
        found = [known[text] for text in parse_categories(self.name, self.kind, value) if text in known]
        return found or [0]

    @cached_property
    def _row_by_value(self) -> dict[str, int]:
        return {value: row for row, value in enumerate(self.values, 1)}


def parse_number(name: str, value: Any) -> float:
    """Return a value as a number.

    Raises:
        ValueError: it is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is a number, found {value!r}")
    return float(value)


def parse_categories(name: str, kind: Kind, value: Any) -> list[str]:
    """Return the different categories of a value as texts, in their order: 7 and "7" are the same one.

    Raises:
        ValueError: the value is of another kind.
    """
    if kind == "categories" and not isinstance(value, list):
        raise ValueError(f"{name} is a list of categories, found {value!r}")
    values = value if kind == "categories" else [value]
    if not all(isinstance(one, str | int) for one in values):
        raise ValueError(f"a category of {name} is a text, a whole number or a truth value, found {value!r}")
    return list(dict.fromkeys(str(one) for one in values))


class EncodedProfiles(NamedTuple):
    """B profiles as the tower reads them.

    Attributes:
        rows: (B, S) int64, rows of the table; weights: (B, S) float32, 0 = padding; an attribute's weights sum to 1.
        attribute: (S,), number of the attribute that each column belongs to; ascending.
    """

    rows: IdMatrix
    weights: FloatMatrix
    attribute: IntVector


class AttributeTable:
    """The rows of all attributes.

    Attributes:
        attributes: in the order of their rows. first: (A,) int64, row of each one's unknown value. size: R, rows.
    """

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        self.attributes = tuple(attributes)
        ends = np.cumsum([0, *(one.size for one in attributes)], dtype=np.int64)
        self.first: IntVector = ends[:-1]
        self.size = int(ends[-1])

    def encode(self, profiles: Sequence[Profile]) -> EncodedProfiles:
        """Return profiles as the tower reads them.

        Raises:
            ValueError: a value is of another kind than its attribute.
        """
        found = [[one.rows(profile) for profile in profiles] for one in self.attributes]
        widths = [max(map(len, rows), default=1) for rows in found]
        shape = len(profiles), sum(widths)
        ids, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        begin = 0
        for first, rows, width in zip(self.first.tolist(), found, widths, strict=True):
            for user, own in enumerate(rows):
                ids[user, begin : begin + len(own)] = [first + row for row in own]
                weights[user, begin : begin + len(own)] = 1 / len(own)
            begin += width
        return EncodedProfiles(ids, weights, np.repeat(np.arange(len(widths)), widths))
