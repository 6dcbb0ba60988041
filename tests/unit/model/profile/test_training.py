"""The tower in Paddle equals the one that serves, and its inputs are drawn as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import load_profile
from configs.schema import ProfileAttribute, ProfileConfig
from model.data.clicks import Clicks
from model.profile.data import ProfiledUsers, known_users, learn_attributes
from model.profile.training import Examples, Learner, first_rows
from model.serving.attributes import AttributeTable
from model.serving.profile import ProfileTower
from tests.unit.model.profile.small import ATTRIBUTES, ITEMS, TASTES, artifact, users


def drawn(number: int = 60) -> ProfiledUsers:
    profiles, clicks = users(number, 1, 3)
    lengths = np.cumsum([0, *map(len, clicks)])
    return ProfiledUsers(list(profiles), Clicks(np.arange(number), lengths, np.concatenate(clicks).astype(np.int64)))


def learner(folder: Path, config: ProfileConfig, normalise: bool = True) -> tuple[Learner, Examples, AttributeTable]:
    model = artifact(folder, normalise=normalise)
    settings = [ProfileAttribute(**one) for one in ATTRIBUTES]
    table = AttributeTable(learn_attributes(settings, drawn().profiles, 1))
    examples = Examples.from_users(drawn(), table, model, config.loss.targets)
    return Learner(config, model, table, examples), examples, table


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("hidden", [0, 5])
def test_serving_computes_what_training_does(tmp_path: Path, hidden: int, normalise: bool) -> None:
    config = load_profile(None, [f"network.hidden={hidden}", "training.drop_attributes=0"], {})
    trained, examples, table = learner(tmp_path / "artifact", config, normalise)
    for _ in range(3):
        trained.step(examples, 0.05)
    tower = ProfileTower(table, trained.weights(), trained.unit, 1.0, {})
    expected = trained._forward(examples.profiles).numpy()
    np.testing.assert_allclose(tower.vectors(drawn().profiles), expected, atol=1e-5)


@pytest.mark.parametrize("settings", [[], ["loss.negatives=50"], ["network.hidden=5"]])
def test_steps_reduce_the_loss(tmp_path: Path, settings: list[str]) -> None:
    trained, examples, _ = learner(tmp_path / "artifact", load_profile(None, ["loss.penalty=0", *settings], {}))
    losses = [trained.step(examples, 0.02) for _ in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


def test_the_penalty_keeps_attributes_near_the_average_user(tmp_path: Path) -> None:
    lengths = []
    for penalty in (0, 1000):
        config = load_profile(None, [f"loss.penalty={penalty}"], {})
        trained, examples, _ = learner(tmp_path / f"{penalty}", config)
        for _ in range(30):
            trained.step(examples, 0.02)
        lengths.append(np.linalg.norm(trained.weights()["table"]))
    assert lengths[1] < lengths[0] / 2


def test_targets_are_the_first_known_items(tmp_path: Path) -> None:
    model = artifact(tmp_path / "artifact")
    last = 1000 + TASTES * ITEMS - 1
    clicks = Clicks(np.array([1, 2, 3]), np.array([0, 4, 5, 7]), np.array([7, 1001, last, 1000, 8, 1002, 1002]))
    assert [rows.tolist() for rows in first_rows(clicks, model, 2)] == [[1, last - 1000], [], [2, 2]]
    assert [rows.tolist() for rows in first_rows(clicks, model, None)] == [[1, last - 1000, 0], [], [2, 2]]
    known = known_users(ProfiledUsers([{"a": 1}, {"a": 2}, {"a": 3}], clicks), model)
    assert (known.profiles, known.clicks.users.tolist()) == ([{"a": 1}, {"a": 3}], [1, 3])
