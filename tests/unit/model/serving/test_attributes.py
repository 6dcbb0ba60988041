"""Attributes of users as rows of a table."""

from __future__ import annotations

from typing import Any

import pytest

from model.serving.attributes import Attribute, AttributeTable

REGION = Attribute("region", "category", values=("7", "north"))
AGE = Attribute("age", "number", edges=(18.0, 65.0))
TOPICS = Attribute("topics", "categories", values=("art", "music", "sport"))
TABLE = AttributeTable([REGION, AGE, TOPICS])


def test_each_attribute_has_rows_of_its_own_and_one_for_unknown() -> None:
    assert (TABLE.first.tolist(), TABLE.size) == ([0, 3, 7], 11)
    encoded = TABLE.encode([{"region": "north", "age": 18, "topics": ["sport", "art", "chess"]}, {"region": 7}])
    assert encoded.attribute.tolist() == [0, 1, 2, 2]
    assert encoded.rows.tolist() == [[2, 5, 10, 8], [1, 3, 7, 0]]
    assert encoded.weights.tolist() == [[1, 1, 0.5, 0.5], [1, 1, 1, 0]]


@pytest.mark.parametrize(
    "profile", [{}, {"region": None, "age": None, "topics": None}, {"region": "moon", "topics": []}]
)
def test_missing_and_new_values_are_unknown(profile: dict[str, Any]) -> None:
    assert TABLE.encode([profile]).rows.tolist() == [[0, 3, 7]]


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"age": "18"}, "age is a number, found '18'"),
        ({"age": True}, "age is a number"),
        ({"age": float("inf")}, "age is a number"),
        ({"region": 1.5}, "region is a text, a whole number or a truth value"),
        ({"topics": "art"}, "topics is a list"),
        ({"topics": [["art"]]}, "a category of topics"),
    ],
)
def test_a_value_of_another_kind_is_named(profile: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TABLE.encode([profile])


def test_an_attribute_is_read_back() -> None:
    for one in TABLE.attributes:
        assert Attribute.from_dict(one.to_dict()) == one


def test_no_profiles_are_no_rows() -> None:
    assert TABLE.encode([]).rows.shape == (0, 3)
