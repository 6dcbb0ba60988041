"""Training end to end: interests that part, runs that repeat and go on, alone or together."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.errors import EXIT_CONFIG, EXIT_FAILURE
from configs.loader import load_train
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.evaluation.runs import kept_epochs, seconds_by_epoch
from model.evaluation.users import encode_users
from model.serving.encoder import Encoder
from model.train import main, train

ROOT = Path(__file__).parents[3]
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
    short = [
        "training.epochs=1",
        "training.epoch_steps=300",
        "training.batch_size=256",
        "loss.negatives=128",
        "network.dim=32",
        "network.residual=0",  # as far apart as they go
    ]
    given = [
        "data.valid_fraction=0",
        *short,
        *overrides,
        f"data.paths=[{path}]",
        f"output.folder={folder / 'artifact'}",
        f"output.runs={folder / 'runs'}",
    ]
    artifact = train(load_train(None, given, {}), QUIET)
    assert artifact is not None
    return artifact


def test_two_disjoint_tastes_part_into_different_interests(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    known, unseen = Checkerboard.draw(1000, rng), Checkerboard.draw(300, rng)
    artifact = train_on(known, tmp_path)
    assert separated(artifact, unseen) >= 0.95
    interests = encode_users(Encoder.from_artifact(artifact), artifact.item_ids, artifact.item_vectors, unseen.clicks)
    # With two tastes, some of the four interests share one; the two that are farthest apart do not.
    farthest = (interests @ interests.transpose(0, 2, 1)).min(axis=(1, 2))
    assert np.median(farthest) < 0.7
    # The yardstick can fail: with tastes that are not in the data, and with a single vector.
    assert separated(train_on(known.shuffled(rng), tmp_path, "training.epoch_steps=100"), unseen) <= 0.05
    assert separated(train_on(known, tmp_path, "training.epoch_steps=100", "network.interests=1"), unseen) == 0


def small_run(folder: Path, *overrides: str) -> list[str]:
    """Arguments of a run of a second on 40 users."""
    path = Checkerboard.draw(40, np.random.default_rng(1)).write(folder / "clicks.csv")
    small = ["training.epochs=1", "training.epoch_steps=5", "training.batch_size=32", "network.dim=8"]
    small += ["loss.negatives=16", f"output.runs={folder / 'runs'}", *overrides]
    sets = [argument for item in small for argument in ("--set", item)]
    return ["--data", str(path), "--out", str(folder / "artifact"), *sets]


def succeed(arguments: list[str]) -> str:
    """Output of a run in this process."""
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Metrics without those that the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocked = {"seconds", "samples_per_second", "data_share"}
    return [{key: value for key, value in line.items() if key not in clocked} for line in lines]


def test_the_same_seed_gives_the_same_model_and_another_seed_another_one(tmp_path: Path) -> None:
    versions: list[str] = []
    for seed in (1, 1, 2):
        succeed(small_run(tmp_path, f"training.seed={seed}", f"output.runs={tmp_path / str(len(versions))}"))
        versions.append(Artifact.load(tmp_path / "artifact").model_version)
    assert versions[0] == versions[1] != versions[2]


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr("model.training.run_folder.datetime", Clock)
    with CliRunner().isolated_filesystem():
        arguments = small_run(Path(), "output.runs=runs")
        for _ in range(3):
            succeed(arguments)
        assert {path.name for path in Path("runs").iterdir()} == {
            "20260102-030405-seed1",
            "20260102-030405-seed1-2",
            "20260102-030405-seed1-3",
        }


@pytest.mark.parametrize("command", [["-m", "model.train"], ["model/train.py"]])
def test_both_ways_to_start_write_an_artifact_and_say_so(tmp_path: Path, command: list[str]) -> None:
    arguments = [*command, "-c", "configs/mind.yaml", *small_run(tmp_path, "data.valid_fraction=0.25")]
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    artifact = Artifact.load(tmp_path / "artifact")
    assert "600 clicks of 30 users on " in run.stdout
    assert "epoch 1/1  loss " in run.stdout
    assert "10 held-out users: recall@50 " in " ".join(run.stdout.split())
    assert f"model {artifact.model_version}: {len(artifact.item_ids)} items" in run.stdout
    assert artifact.manifest["users"] == 30
    assert artifact.manifest["clicks"] == artifact.item_counts.sum() == 600
    assert artifact.manifest["config"]["training"]["epoch_steps"] == 5
    assert 0 < artifact.manifest["metrics"]["recall@50"] <= 1
    assert np.linalg.norm(artifact.item_vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_other_users_can_be_measured_in_either_format(tmp_path: Path) -> None:
    other = tmp_path / "valid"
    for text in ("user_id:1 target_item:0 hist_item:1000 hist_item:7 eval_item:1001\n", "9,1000,1\n9,1001,2\n"):
        other.write_text(text, encoding="utf-8")
        run = ["--run", str(tmp_path / str(len(text)))]
        output = succeed([*small_run(tmp_path, f"data.valid_paths=[{other}]"), *run])
        assert "800 clicks of 40 users" in output
        assert "1 held-out users" in output


def test_a_run_ends_by_the_clock(tmp_path: Path) -> None:
    assert "epoch 1/1 loss" in succeed(small_run(tmp_path, "training.epoch_steps=1000000", "training.max_seconds=1"))


def test_a_run_leaves_a_folder_that_tells_all(tmp_path: Path) -> None:
    kept = ("output.keep_epochs=true", "training.epochs=3", "data.valid_fraction=0.25")
    run = tmp_path / "run"
    output = succeed([*small_run(tmp_path, *kept), "--run", str(run)])
    artifact = Artifact.load(tmp_path / "artifact")
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.jsonl", "training.png", "last.npz", "best.npz", "epochs",
    }  # fmt: skip
    assert load_train(run / "config.yaml", (), {}).model_dump(mode="json") == artifact.manifest["config"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 5), (2, 10), (3, 15)]
    for line in lines:
        assert 0 < line["loss"] < 20
        assert 0 <= line["recall@50"] <= line["hit_rate@50"] <= 1
        assert -1 <= line["interest_cosine"] <= 1
        assert line["samples_per_second"] > 0
        assert 0 <= line["data_share"] < 1
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
    assert f"epoch 3/3 loss {lines[2]['loss']:.4f} recall@50 {lines[2]['recall@50']:.4f}" in output
    assert "of the time waiting for data" in output
    # What `model.evaluate --run` reads, and which epoch the artifact is from.
    assert set(seconds_by_epoch(run)) == {1, 2, 3}
    epochs = {epoch: Artifact.load(path) for epoch, path in kept_epochs(run, None)}
    best = max(lines, key=lambda line: (line["recall@50"], -line["epoch"]))["epoch"]
    assert f"Best epoch: {best}" in output
    assert epochs[best].model_version == artifact.model_version
    assert len({one.model_version for one in epochs.values()}) == 3
    assert artifact.manifest["metrics"]["recall@50"] == pytest.approx(lines[best - 1]["recall@50"])


def test_the_best_epoch_is_served_and_not_the_last(tmp_path: Path) -> None:
    """Rates that only do harm after the first epoch: recall falls, and patience ends the run."""
    harm = ["training.epochs=50", "training.epoch_steps=20", "training.patience=2", "training.decay=none"]
    harm += ["data.valid_fraction=0.5", "training.learning_rate=0.2", "output.keep_epochs=true", "network.dim=2"]
    output = succeed([*small_run(tmp_path, *harm), "--run", str(tmp_path / "run")])
    recalls = [line["recall@50"] for line in lines_of(tmp_path / "run")]
    best = recalls.index(max(recalls)) + 1
    assert best == len(recalls) - 2
    assert f"Stopped early after epoch {best + 2}: recall@50 has not risen for 2 epochs" in output
    served = Artifact.load(tmp_path / "artifact").model_version
    assert served == Artifact.load(tmp_path / "run" / "epochs" / f"{best:04}").model_version


#: Some seconds of small steps, so that a signal comes in between.
LONG = ("training.epochs=30", "training.epoch_steps=5", "training.patience=null", "data.valid_fraction=0.5")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_and_ends_like_an_uninterrupted_one(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeed([*small_run(tmp_path, *LONG), "--run", str(whole)])
    expected = Artifact.load(tmp_path / "artifact").model_version
    shutil.rmtree(tmp_path / "artifact")

    with started(["-m", "model.train", *small_run(tmp_path, *LONG), "--run", str(broken)]) as run:
        wait_for((broken / "metrics.jsonl").exists, run)
        run.send_signal(number)
        output, errors = run.communicate(timeout=60)
    assert run.returncode == status, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "artifact").exists()
    stopped = re.search(r"Stopped at step (\d+); .* Go on with: python (.*)", output)
    assert stopped is not None, output
    assert 5 <= int(stopped[1]) < 150
    assert (broken / "training.png").exists()

    assert shlex.split(stopped[2]) == ["-m", "model.train", "--resume", str(broken)]
    succeed(["--resume", str(broken)])
    assert lines_of(broken) == lines_of(whole)
    assert Artifact.load(tmp_path / "artifact").model_version == expected


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """With an odd batch, so that their shares differ."""
    settings = ("training.epochs=2", "training.batch_size=33", "data.valid_fraction=0.25")
    succeed([*small_run(tmp_path, *settings), "--run", str(tmp_path / "one")])
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", f"--log_dir={tmp_path / 'log'}"]
    command = [*launcher, "model/train.py", *small_run(tmp_path, *settings), "--run", str(tmp_path / "two")]
    with started(command) as run:
        output, errors = run.communicate(timeout=200)
    assert run.returncode == 0, output + errors
    assert "cpu, 2 processes" in output + errors
    one, two = lines_of(tmp_path / "one"), lines_of(tmp_path / "two")
    assert len(one) == len(two) == 2
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    assert Artifact.load(tmp_path / "artifact").manifest["users"] == 30


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow on the way
def test_a_run_that_diverges_says_so_and_writes_no_artifact(tmp_path: Path) -> None:
    wild = ("training.learning_rate=1e30", "network.normalise=false")
    result = CliRunner().invoke(main, small_run(tmp_path, *wild), catch_exceptions=False)
    assert result.exit_code == 1
    explained = " ".join(result.output.split())
    assert "training diverged at step" in explained
    assert "Lower training.learning_rate (now 1e+30)" in explained
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(
    ("overrides", "status", "complaint"),
    [
        (["--set", "training.epochz=5"], EXIT_CONFIG, "did you mean 'training.epochs'?"),
        (["--set", "training.precision=bfloat16"], EXIT_CONFIG, "needs a GPU"),
        (["--run", "{here}"], EXIT_FAILURE, "go on with it (--resume), or name another folder (--run)"),
        (["--data", "missing.txt"], EXIT_FAILURE, "missing.txt: cannot be read"),
        (["--out", "model"], EXIT_FAILURE, "is no artifact, so it is not replaced"),
        (["--set", "training.shortest_history=50"], EXIT_FAILURE, "lower training.shortest_history"),
    ],
)
def test_what_cannot_work_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], status: int, complaint: str
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "config.yaml").touch()  # as if a run had begun here
    given = [part.format(here=tmp_path) for part in overrides]
    result = CliRunner().invoke(main, [*small_run(tmp_path), *given], catch_exceptions=False)
    assert result.exit_code == status
    assert complaint in " ".join(result.output.split())
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--set", "network.dim=9"], "network.dim was 8; start a new run"),
        (["--data", "{folder}/other.csv"], "other data than when this run was started"),
        (["-c", "configs/mind.yaml"], "--resume without -c"),
    ],
)
def test_a_run_goes_on_with_what_it_began_with_alone(tmp_path: Path, change: list[str], complaint: str) -> None:
    run = str(tmp_path / "run")
    succeed([*small_run(tmp_path), "--run", run])
    shutil.copy(tmp_path / "clicks.csv", tmp_path / "same.csv")
    (tmp_path / "other.csv").write_text((tmp_path / "clicks.csv").read_text() + "7,1000,99\n")
    arguments = [part.format(folder=tmp_path) for part in change]
    result = CliRunner().invoke(main, ["--resume", run, *arguments], catch_exceptions=False)
    assert result.exit_code != 0
    assert complaint in " ".join(result.output.split())
    # The same clicks from another file, to another artifact: nothing is left to train.
    version = Artifact.load(tmp_path / "artifact").model_version
    succeed(["--resume", run, "--data", str(tmp_path / "same.csv"), "--out", str(tmp_path / "again")])
    assert Artifact.load(tmp_path / "again").model_version == version


def test_a_run_that_is_not_there_cannot_go_on(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--resume", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == EXIT_CONFIG
    assert "config.yaml: cannot be read" in " ".join(result.output.split())


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the checkout, which does not outlive the test."""
    command = [sys.executable, "-u", *arguments]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def wait_for(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    while not condition():
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
