"""Synthetic clicks: their documented structure is verified by counting clicks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from producers import synthetic
from producers.click_log import read_click_log
from producers.generate import Shape, SyntheticClicks, generate, main, write_clicks, write_truth

SHAPE = Shape(users=800, items=600, clicks=16_000, tastes=12, tastes_per_user=3, drift=0.05)


@pytest.fixture(scope="module")
def made() -> SyntheticClicks:
    return generate(SHAPE, seed=3)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    tastes = draw(st.integers(1, 8))
    per_user = draw(st.integers(1, tastes))
    users = draw(st.integers(1, 20))
    drift = draw(st.floats(0, 1)) if per_user < tastes else 0.0
    order: Literal["rank", "time"] = draw(st.sampled_from(["rank", "time"]))
    return Shape(users, draw(st.integers(tastes, 60)), draw(st.integers(users, 300)), tastes, per_user, drift, order)


@given(shapes(), st.integers(0, 2**32))
def test_clicks_have_the_requested_numbers_of_users_items_and_tastes(shape: Shape, seed: int) -> None:
    made = generate(shape, seed)
    assert len(made.user) == len(made.item) == len(made.order) == len(made.taste) == shape.clicks
    assert np.unique(made.user).tolist() == list(range(shape.users))
    assert 1 <= made.item.min() <= made.item.max() <= shape.items
    assert made.item_taste.shape == (shape.items + 1,)
    assert (made.item_taste[made.item] == made.taste).all()
    counts = np.bincount(made.item, minlength=shape.items + 1)[1:]
    assert (np.diff(counts) <= 0).all(), "ids are in order of falling frequency"
    for user in range(shape.users):
        order = made.order[made.user == user]
        assert (np.diff(order) > 0).all()
        assert len(set(made.first_tastes[user].tolist())) == shape.tastes_per_user
        assert len(set(made.last_tastes[user].tolist())) == shape.tastes_per_user


def test_the_seed_decides_everything(made: SyntheticClicks) -> None:
    again, other = generate(SHAPE, seed=3), generate(SHAPE, seed=4)
    assert made.item.tolist() == again.item.tolist() != other.item.tolist()


def test_blocks_of_users_do_not_affect_the_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BLOCK_CLICKS", 700)
    done: list[int] = []
    made = generate(SHAPE, 3, done.append)
    assert len(done) > 10
    assert done[-1] == SHAPE.clicks
    assert (made.order[np.diff(made.user, prepend=-1) != 0] == 0).all()


def test_without_drift_a_user_keeps_its_tastes() -> None:
    made = generate(Shape(300, 600, 12_000, 12, 3, 0.0), seed=5)
    assert not made.drifts.any()
    for user in range(300):
        assert set(made.taste[made.user == user].tolist()) <= set(made.first_tastes[user].tolist())
    assert (made.first_tastes == made.last_tastes).all()


def test_drift_replaces_tastes_at_its_rate(made: SyntheticClicks) -> None:
    assert made.drifts.sum() == pytest.approx(0.05 * (SHAPE.clicks - SHAPE.users), rel=0.15)
    drifted = (made.drifts > 0) & (
        made.drifts < SHAPE.tastes
    )  # after as many drifts as tastes, the first ones are active again
    assert (made.first_tastes[drifted] != made.last_tastes[drifted]).any(axis=1).all()


def test_popularity_and_activity_are_skewed(made: SyntheticClicks) -> None:
    counts = np.sort(np.bincount(made.item, minlength=SHAPE.items + 1)[1:])[::-1]
    assert counts[: SHAPE.items // 10].sum() > 0.25 * SHAPE.clicks
    activity = np.bincount(made.user)
    assert activity.mean() > 1.2 * np.median(activity)
    pairs = Counter(zip(made.user.tolist(), made.item.tolist(), strict=True))
    assert sum(count - 1 for count in pairs.values()) < 0.1 * SHAPE.clicks, "people seldom click a book twice"


def test_the_order_of_items_predicts_better_than_popularity() -> None:
    made = generate(Shape(3_000, 600, 60_000, 12, 3, 0.02), seed=6)
    same = made.user[1:] == made.user[:-1]
    pairs = np.stack((made.item[:-1], made.item[1:]), axis=1)[same]
    train, test = pairs[: len(pairs) * 8 // 10], pairs[len(pairs) * 8 // 10 :]
    followers: dict[int, Counter[int]] = defaultdict(Counter)
    for item, following in train.tolist():
        followers[item][following] += 1
    best = {item: {following for following, _ in counter.most_common(20)} for item, counter in followers.items()}
    hits = np.mean([following in best.get(item, ()) for item, following in test.tolist()])
    popular = np.mean(test[:, 1] <= 20)
    assert hits > 2.5 * popular


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"users": 0}, "at least 1"),
        ({"clicks": 5}, "not enough"),
        ({"items": 5}, "cannot be divided"),
        ({"tastes_per_user": 13}, "tastes in all"),
        ({"drift": 1.5}, "probability"),
        ({"tastes_per_user": 12}, "none to drift to"),
    ],
)
def test_contradicting_sizes_are_refused(change: dict[str, float], fault: str) -> None:
    fields = {name: getattr(SHAPE, name) for name in SHAPE.__slots__}
    with pytest.raises(ValueError, match=fault):
        Shape(**(fields | change))


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.csv.gz", "clicks.csv.xz"])
def test_files_can_be_read_back_and_are_reproducible(tmp_path: Path, made: SyntheticClicks, name: str) -> None:
    write_clicks(made, str(tmp_path / name))
    content = (tmp_path / name).read_bytes()
    log = read_click_log([tmp_path / name])
    assert log.item.tolist() == made.item.tolist()
    assert [log.user_ids[user] for user in log.user.tolist()] == made.user.tolist()
    write_clicks(made, str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == content


def test_both_truth_formats_hold_the_same_arrays(tmp_path: Path, made: SyntheticClicks) -> None:
    write_truth(made, tmp_path / "t.npz")
    write_truth(made, tmp_path / "t.json")
    stored = json.loads((tmp_path / "t.json").read_text())
    with np.load(tmp_path / "t.npz") as arrays:
        assert {name: arrays[name].tolist() for name in arrays.files} == stored
    assert stored["item_taste"][0] == -1


def test_the_command_writes_clicks_and_reports_wrong_options(tmp_path: Path) -> None:
    out = CliRunner().invoke(main, ["--clicks", "500", "--users", "20", "--order", "time", "--out", "-"])
    assert out.exit_code == 0
    assert len(out.stdout.splitlines()) == 500
    assert all(int(line.split(",")[2]) >= 1_704_067_200 for line in out.stdout.splitlines())
    failed = CliRunner().invoke(main, ["--clicks", "5", "--out", "-"])
    assert failed.exit_code == 1
    assert "not enough" in failed.output
    assert "must end in" in CliRunner().invoke(main, ["--out", "-", "--truth", "x.csv"]).output
    missing = CliRunner().invoke(main, ["--out", str(tmp_path / "no" / "c.csv")])
    assert "cannot be written" in missing.output
