"""The pass criterion, variants and generated data of `make quality`, without training."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import quality
from benchmarks.quality import ABLATIONS, REFERENCES, SPLITS, VARIANTS, Task, default_beats_references
from configs.loader import FOLDER, load_train
from embedded.instance import CHECKOUT
from producers.synthetic import Shape
from tests.site import environment


def results(**recall: float) -> dict[Task, dict[str, float]]:
    names = {"ml": "ml-1m", "games": "video-games"}
    return {Task("default", names[key[:-1]], int(key[-1])): {"recall@50": value} for key, value in recall.items()} | {
        Task("published", "ml-1m", 1): {"recall@50": 0.0}
    }


def test_the_mean_of_the_default_must_reach_the_best_reference_on_both_splits() -> None:
    best = {split: REFERENCES[split]["best"]["recall@50"] for split in SPLITS}
    ml, games = best["ml-1m"], best["video-games"]
    assert default_beats_references(results(ml1=ml - 1, ml2=ml + 1.1, games1=games))
    assert not default_beats_references(results(ml1=ml - 1, ml2=ml + 0.9, games1=games))
    assert not default_beats_references(results(ml1=ml, games1=games - 0.1))
    assert default_beats_references(results(ml1=ml))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_configuration(name: str) -> None:
    file, overrides = VARIANTS[name]
    config = load_train(FOLDER / file, overrides, {})
    assert name not in ABLATIONS or config != load_train(None, (), {})


def test_the_generated_split_separates_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "FOLDER", tmp_path)
    monkeypatch.setattr(quality, "SHAPE", Shape(50, 40, 500, tastes=8, tastes_per_user=4, drift=0.0))
    quality.generate_split()
    users = {}
    for name in ("train", "valid", "test"):
        with lzma.open(tmp_path / "generated-split" / f"{name}.csv.xz", "rt") as file:
            users[name] = set(np.loadtxt(file, delimiter=",", dtype=np.int64)[:, 0].tolist())
    assert [len(part) for part in users.values()] == [40, 5, 5]
    assert not users["train"] & (users["valid"] | users["test"])


def test_missing_data_are_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.quality"]
    missing = environment(MINDSTREAM_DATA=str(tmp_path / "none"))
    done = subprocess.run(command, cwd=CHECKOUT, env=missing, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MINDSTREAM_DATA" in done.stdout
