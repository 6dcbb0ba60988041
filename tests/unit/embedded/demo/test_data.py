"""The demo's split of users: each one is trained on or replayed, never both."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.demo.data import MIN_CLICKS, prepare_clicks
from model.data.files import DataError


def _users(path: Path) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        user, item, _ = line.split(",")
        users.setdefault(user, []).append(item)
    return users


def test_a_file_is_split_by_user(tmp_path: Path) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text("".join(f"{u},{i},{i}\n" for u in range(50) for i in range(1, 2 + u % 7)))
    data = prepare_clicks(source, tmp_path, clicks=20)
    train, replay = _users(data.train), _users(data.replay)
    assert not train.keys() & replay.keys()
    assert len(train) + len(replay) == 50
    assert all(len(items) >= MIN_CLICKS for items in replay.values())
    assert sum(map(len, replay.values())) == data.replay_clicks >= 20
    assert len(replay) == data.replay_users
    longest = max(len(items) for items in replay.values())
    assert len(replay[data.story_user.decode()]) == longest
    assert data.item_text(3) == "3"
    assert "NEW" in data.item_text(1000)


@pytest.mark.parametrize("lengths", [[], [1] * 40, [3, 3, 3], [9], [9, 1, 1]])
def test_too_few_clicks_are_one_error(tmp_path: Path, lengths: list[int]) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text("".join(f"{u},{i},{i}\n" for u, length in enumerate(lengths) for i in range(1, 1 + length)))
    with pytest.raises(DataError, match="too few clicks; the demo needs a user with 4 clicks"):
        prepare_clicks(source, tmp_path, clicks=20)


@pytest.mark.parametrize(("first", "order"), [(1, "rank"), (1_404_172_800, "time")])
def test_the_parts_have_the_order_of_the_file(tmp_path: Path, first: int, order: str) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text("".join(f"{u},{i},{first + i}.5\n" for u in range(9) for i in range(1, 9)))
    data = prepare_clicks(source, tmp_path, clicks=20)
    assert data.order == order
    assert all(line in source.read_text() for line in data.train.read_text().splitlines())


def test_generated_clicks_name_their_taste(tmp_path: Path) -> None:
    data = prepare_clicks(None, tmp_path, clicks=100)
    assert data.train_clicks + data.replay_clicks == 400_000
    assert "taste" in data.item_text(1)
    assert 100 <= data.replay_clicks < 2_000
