"""A trained network separates disjoint tastes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from configs.loader import load_train
from model.artifact import Artifact
from model.evaluation.users import encode_users
from model.serving.encoder import Encoder
from model.train import train
from tests.unit.model.small_runs import (
    ITEMS_PER_TASTE,
    TwoTasteUsers,
)


def separated(artifact: Artifact, users: TwoTasteUsers) -> float:
    """Return the share of users with an interest for each of their two tastes.

    An interest is for a taste if at least 90 % of the 25 items nearest to it belong to that taste. No vector can be for
    two tastes, because 90 % of 25 items cannot belong to each: so a model with one vector scores 0 whatever it learns.
    """
    interests = encode_users(Encoder.from_artifact(artifact), artifact.item_ids, artifact.item_vectors, users.clicks)
    nearest = np.argsort(-(interests @ artifact.item_vectors.T), axis=2)[:, :, :ITEMS_PER_TASTE]  # (U, K, 25)
    taste = (artifact.item_ids[nearest] - 1000) // ITEMS_PER_TASTE
    purity = (taste[:, None] == users.tastes[:, :, None, None]).mean(axis=3)  # (U, 2, K)
    return float((purity.max(axis=2) >= 0.9).all(axis=1).mean())


def train_on(users: TwoTasteUsers, folder: Path, *overrides: str) -> Artifact:
    path = users.write(folder / "clicks.csv")
    short = [
        "training.epochs=1",
        "training.epoch_steps=300",
        "training.batch_size=256",
        "loss.negatives=128",
        "network.dim=32",
        "network.residual=0",  # interests as distinct as possible
    ]
    given = [
        "data.valid_fraction=0",
        *short,
        *overrides,
        f"data.paths=[{path}]",
        f"output.folder={folder / 'artifact'}",
        f"output.runs={folder / 'runs'}",
    ]
    artifact = train(load_train(None, given, {}), Console(quiet=True))
    assert artifact is not None
    return artifact


def test_two_disjoint_tastes_become_different_interests(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    known, unseen = TwoTasteUsers.draw(1000, rng), TwoTasteUsers.draw(300, rng)
    artifact = train_on(known, tmp_path)
    assert separated(artifact, unseen) >= 0.95
    interests = encode_users(Encoder.from_artifact(artifact), artifact.item_ids, artifact.item_vectors, unseen.clicks)
    # With two tastes, some of the four interests share one; the two that are farthest apart do not.
    farthest = (interests @ interests.transpose(0, 2, 1)).min(axis=(1, 2))
    assert np.median(farthest) < 0.7
    # The measure is low where it should be: if the training data have no tastes, and with a single vector.
    assert separated(train_on(known.shuffled(rng), tmp_path, "training.epoch_steps=100"), unseen) <= 0.05
    assert separated(train_on(known, tmp_path, "training.epoch_steps=100", "network.interests=1"), unseen) == 0
