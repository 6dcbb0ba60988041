"""Popular items, overall and in groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.errors import ConfigError
from model.data.clicks import Clicks
from model.profile.baselines import Popularity
from model.profile.data import ProfiledUsers
from model.serving.attributes import Attribute, AttributeTable
from tests.unit.model.profile.small import artifact

TABLE = AttributeTable([Attribute("region", "category", values=("a", "b")), Attribute("topics", "categories")])
#: Two users of region a click 1003, three of region b click 1005, and 1007 comes second for all but one.
ITEMS = [1003, 1007, 1003, 1007, 1005, 1007, 1005, 1007, 1005]
USERS = ProfiledUsers(
    [{"region": region} for region in "aabbb"], Clicks(np.arange(5), np.array([0, 2, 4, 6, 8, 9]), np.array(ITEMS))
)


def test_groups_have_their_own_popular_items_and_are_shrunk_to_the_whole(tmp_path: Path) -> None:
    counted = Popularity.count(USERS, artifact(tmp_path / "artifact"), TABLE, ["region"])
    assert counted.popular(2, 3).tolist() == [[7, 5, 3]] * 2
    profiles = [{"region": "a"}, {"region": "b"}, {"region": "moon"}]
    assert counted.in_groups(profiles, 2, 0).tolist() == [[3, 7], [5, 7], [7, 5]]
    assert counted.in_groups(profiles, 2, 1e6).tolist() == [[7, 5]] * 3


def test_only_first_clicks_may_be_counted(tmp_path: Path) -> None:
    counted = Popularity.count(USERS, artifact(tmp_path / "artifact"), TABLE, ["region"], 1)
    assert counted.popular(1, 2).tolist() == [[5, 3]]


@pytest.mark.parametrize("name", ["topics", "height"])
def test_groups_need_one_value_for_each_user(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"--group {name}: .*there are: region"):
        Popularity.count(USERS, artifact(tmp_path / "artifact"), TABLE, [name])
