"""Training end to end: interests that part, runs that repeat, and a command line that leaves nothing half done."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import load_train
from model.artifact import Artifact
from model.data import Clicks
from model.encoder import Encoder
from model.evaluate import encode_users
from model.metrics import interest_cosine
from model.train import main, train

ROOT = Path(__file__).parents[2]
TASTES, ITEMS = 8, 25  # items of a taste
QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Checkerboard:
    """Users with two disjoint tastes each, their clicks in random order, half on either; item i is of taste i // 25."""

    clicks: Clicks
    tastes: np.ndarray[tuple[int, int], np.dtype[np.int64]]

    @classmethod
    def draw(cls, users: int, rng: np.random.Generator) -> Checkerboard:
        tastes = np.array([rng.choice(TASTES, 2, replace=False) for _ in range(users)])
        halves = rng.permuted(np.tile([0, 1], (users, 10)), axis=1)  # (users, 20)
        items = np.take_along_axis(tastes, halves, axis=1) * ITEMS + rng.integers(0, ITEMS, halves.shape)
        return cls(Clicks(np.arange(users), np.arange(users + 1) * 20, items.ravel() + 1000), tastes)

    def shuffled(self, rng: np.random.Generator) -> Checkerboard:
        """The same users and items without tastes."""
        clicks = self.clicks
        return Checkerboard(Clicks(clicks.users, clicks.offsets, rng.permutation(clicks.items)), self.tastes)

    def write(self, path: Path) -> Path:
        lines = (f"{u},{item},{n}\n" for u in range(len(self.clicks)) for n, item in enumerate(self.clicks.of(u)))
        path.write_text("".join(lines), encoding="utf-8")
        return path


def separated(artifact: Artifact, users: Checkerboard) -> float:
    """Share of users for whom each of the two tastes has an interest whose 25 nearest items are 90 % of that taste.

    No vector can do it for two tastes, because 25 items cannot be 90 % of both: so these are two different interests,
    and a model with one vector scores 0 whatever it learns.
    """
    interests = encode_users(Encoder.from_artifact(artifact), artifact.item_ids, artifact.item_vectors, users.clicks)
    nearest = np.argsort(-(interests @ artifact.item_vectors.T), axis=2)[:, :, :ITEMS]  # (U, K, 25)
    taste = (artifact.item_ids[nearest] - 1000) // ITEMS
    purity = (taste[:, None] == users.tastes[:, :, None, None]).mean(axis=3)  # (U, 2, K)
    return float((purity.max(axis=2) >= 0.9).all(axis=1).mean())


def train_on(users: Checkerboard, folder: Path, *overrides: str) -> Artifact:
    path = users.write(folder / "clicks.csv")
    short = ["training.steps=300", "training.batch_size=256", "loss.negatives=128", "network.dim=32"]
    given = [
        "data.valid_fraction=0",
        *short,
        *overrides,
        f"data.paths=[{path}]",
        f"output.folder={folder / 'artifact'}",
    ]
    return train(load_train(None, given, {}), QUIET)


def test_two_disjoint_tastes_part_into_different_interests(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    known, unseen = Checkerboard.draw(1000, rng), Checkerboard.draw(300, rng)
    artifact = train_on(known, tmp_path)
    assert separated(artifact, unseen) >= 0.95
    interests = encode_users(Encoder.from_artifact(artifact), artifact.item_ids, artifact.item_vectors, unseen.clicks)
    assert interest_cosine(interests) < 0.8
    # The yardstick can fail: with tastes that are not in the data, and with a single vector.
    assert separated(train_on(known.shuffled(rng), tmp_path, "training.steps=100"), unseen) <= 0.05
    assert separated(train_on(known, tmp_path, "training.steps=100", "network.interests=1"), unseen) == 0


def small_run(folder: Path, *overrides: str) -> list[str]:
    """Arguments of a run of a second on 40 users."""
    path = Checkerboard.draw(40, np.random.default_rng(1)).write(folder / "clicks.csv")
    small = ["training.steps=5", "training.batch_size=32", "network.dim=8", "loss.negatives=16", *overrides]
    sets = [argument for item in small for argument in ("--set", item)]
    return ["--data", str(path), "--out", str(folder / "artifact"), *sets]


def test_the_same_seed_gives_the_same_model_and_another_seed_another_one(tmp_path: Path) -> None:
    versions = []
    for seed in (1, 1, 2):
        result = CliRunner().invoke(main, small_run(tmp_path, f"training.seed={seed}"), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        versions.append(Artifact.load(tmp_path / "artifact").model_version)
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize("command", [["-m", "model.train"], ["model/train.py"]])
def test_both_ways_to_start_write_an_artifact_and_say_so(tmp_path: Path, command: list[str]) -> None:
    arguments = [*command, "-c", "configs/train.yaml", *small_run(tmp_path, "data.valid_fraction=0.25")]
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    artifact = Artifact.load(tmp_path / "artifact")
    assert "600 clicks of 30 users on " in run.stdout
    assert "training 100%  loss " in run.stdout
    assert "10 held-out users: recall@50 " in " ".join(run.stdout.split())
    assert f"model {artifact.model_version}: {len(artifact.item_ids)} items" in run.stdout
    assert artifact.manifest["users"] == 30
    assert artifact.manifest["clicks"] == artifact.item_counts.sum() == 600
    assert artifact.manifest["config"]["training"]["steps"] == 5
    assert 0 < artifact.manifest["metrics"]["recall@50"] <= 1
    assert np.linalg.norm(artifact.item_vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_other_users_can_be_measured_in_either_format(tmp_path: Path) -> None:
    other = tmp_path / "valid"
    for text in ("user_id:1 target_item:0 hist_item:1000 hist_item:7 eval_item:1001\n", "9,1000,1\n9,1001,2\n"):
        other.write_text(text, encoding="utf-8")
        result = CliRunner().invoke(main, small_run(tmp_path, f"data.valid_paths=[{other}]"), catch_exceptions=False)
        assert "800 clicks of 40 users" in result.output
        assert "1 held-out users" in result.output


def test_a_run_ends_by_the_clock(tmp_path: Path) -> None:
    slow = ("training.steps=1000000", "training.max_seconds=1")
    result = CliRunner().invoke(main, small_run(tmp_path, *slow), catch_exceptions=False)
    assert result.exit_code == 0
    assert "training 100%" in result.output


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["--set", "training.stepz=5"], "did you mean 'training.steps'?"),
        (["--data", "missing.txt"], "missing.txt: cannot be read"),
        (["--out", "model"], "is no artifact, so it is not replaced"),
        (["--set", "training.shortest_history=50"], "lower training.shortest_history"),
    ],
)
def test_what_cannot_work_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], complaint: str
) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, [*small_run(tmp_path), *overrides], catch_exceptions=False)
    assert result.exit_code == 1
    assert complaint in " ".join(result.output.split())
    assert not (tmp_path / "artifact").exists()


def test_an_interrupted_run_leaves_no_artifact(tmp_path: Path) -> None:
    arguments = small_run(tmp_path, "training.steps=1000000", "network.dim=64", "training.batch_size=512")
    run = subprocess.Popen(
        [sys.executable, "-u", "-m", "model.train", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert "clicks of" in run.stdout.readline()  # from here on it trains
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Stopped; no artifact was written." in errors
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.csv"]
