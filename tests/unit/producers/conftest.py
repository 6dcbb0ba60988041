"""Fixtures of the producers: a mock cluster, a click file, an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    save_artifact(
        tmp_path / "artifact",
        weights={"w": vectors[:2]},
        interests=4,
        history_length=20,
        encoder={},
        item_ids=np.arange(1, 301),
        item_vectors=vectors,
        item_counts=np.ones(300, np.int64),
        users=1,
        clicks=1,
        config={},
    )
    return tmp_path / "artifact"
