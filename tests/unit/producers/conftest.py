"""Fixtures of the producers: a mock cluster, a click file, an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.arrays import FloatMatrix
from model.artifact import save_artifact
from tests.unit.producers.mock_kafka import MockKafka


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> MockKafka:
    mock = MockKafka()
    mock.create("clicks")
    mock.create("items")
    monkeypatch.setenv("MINDSTREAM_KAFKA", mock.address)
    return mock  # nothing to stop: the cluster ends with its producer


@pytest.fixture
def clicks_file(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("".join(f"{user},{1000 * (user + 1) + rank},{rank}\n" for user in range(40) for rank in range(25)))
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """The folder of an artifact whose vectors have free norms."""
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    return _save(tmp_path / "artifact", vectors, normalise=False)


@pytest.fixture
def unit_artifact(tmp_path: Path) -> Path:
    """The folder of an artifact of a model that normalises; item 7 breaks the rule."""
    vectors = np.repeat(np.eye(8, dtype=np.float32), 40, axis=0)[:300]
    vectors[6] *= 3
    return _save(tmp_path / "unit", vectors, normalise=True)


def _save(folder: Path, vectors: FloatMatrix, *, normalise: bool) -> Path:
    save_artifact(
        folder,
        weights={"w": vectors[:2]},
        interests=4,
        history_length=20,
        encoder={"normalise": normalise},
        item_ids=np.arange(1, 301),
        item_vectors=vectors,
        item_counts=np.ones(300, np.int64),
        users=1,
        clicks=1,
        config={},
    )
    return folder
