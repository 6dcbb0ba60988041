"""Profiles from files, joined with clicks, and the values that are learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.schema import ProfileAttribute
from model.data.clicks import Clicks
from model.data.files import DataError
from model.data.malformed import MalformedLines
from model.profile.data import learn_attributes, read_profiles, with_profiles

REGION = ProfileAttribute(name="region", kind="category")
TOPICS = ProfileAttribute(name="topics", kind="categories")


def age(bins: int | tuple[float, ...]) -> ProfileAttribute:
    return ProfileAttribute(name="age", kind="number", bins=bins)


def test_the_last_line_of_a_user_counts(tmp_path: Path) -> None:
    path = tmp_path / "profiles.jsonl"
    path.write_text('{"user_id": 7, "region": "north"}\n\n{"user_id": "x"}\n{"user_id": "7", "region": null}\n')
    assert read_profiles([path], [REGION], MalformedLines()) == {
        "7": {"user_id": "7", "region": None},
        "x": {"user_id": "x"},
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "found no JSON"),
        ("[1]", 'as "user_id"'),
        ('{"age": 3}', 'as "user_id"'),
        ('{"user_id": 1.5}', 'as "user_id"'),
        ('{"user_id": true}', 'as "user_id"'),
        ('{"user_id": ""}', "a user id has 1 to 256 bytes"),
        ('{"user_id": 1, "age": "old"}', "age is a number, found 'old'"),
        ('{"user_id": 1, "age": NaN}', "age is a number"),
        ('{"user_id": 1, "region": ["north"]}', "a category of region is a text"),
        ('{"user_id": 1, "topics": "art"}', "topics is a list of categories"),
    ],
)
def test_malformed_lines_fail_or_are_left_out(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "profiles.jsonl"
    path.write_text(f'{{"user_id": 1}}\n{line}\n')
    attributes = [REGION, TOPICS, age(2)]
    with pytest.raises(DataError, match=r"line 2: ") as caught:
        read_profiles([path], attributes, MalformedLines())
    assert reason in str(caught.value)
    malformed = MalformedLines("skip")
    assert read_profiles([path], attributes, malformed) == {"1": {"user_id": 1}}
    assert malformed.total == 1


def test_users_are_joined_by_the_text_of_their_ids() -> None:
    clicks = Clicks(np.array([3, 5, 7]), np.array([0, 1, 3, 4]), np.array([10, 11, 12, 13]))
    joined = with_profiles(clicks, {"7": {"age": 1}, "5": {"age": 2}, "9": {}})
    assert joined.profiles == [{"age": 2}, {"age": 1}]
    assert joined.clicks.items.tolist() == [11, 12, 13]
    with pytest.raises(DataError, match="such as 3, 5, 7, has a profile"):
        with_profiles(clicks, {"user-3": {}})


def test_rare_values_are_unknown() -> None:
    profiles = (
        [{"region": "north"}] * 3 + [{"region": "east"}] + [{}] + [{"topics": ["b", "a", "a"]}, {"topics": ["a"]}]
    )
    region, topics = learn_attributes([REGION, TOPICS], profiles, 2)
    assert region.values == ("north",)
    assert topics.values == ("a",)


def test_bins_have_equally_many_users_or_the_given_edges() -> None:
    profiles = [{"age": number} for number in range(100)]
    (learned,) = learn_attributes([age(4)], profiles, 1)
    (given,) = learn_attributes([age((18, 65))], profiles, 1)
    rows = [learned.rows(profile)[0] for profile in profiles]
    assert np.bincount(rows).tolist() == [0, 25, 25, 25, 25]
    assert [given.rows({"age": number}) for number in (-1, 17.9, 18, 64, 65, 900)] == [[1], [1], [2], [2], [3], [3]]
    (constant,) = learn_attributes([age(4)], [{"age": 5}] * 9, 1)
    assert constant.rows({"age": 5}) == [1]
