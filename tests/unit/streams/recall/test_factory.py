"""Building a recall engine from settings and an artifact."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import FatalError
from configs.loader import load_worker
from model.artifact import Artifact, save_artifact
from streams.recall.factory import build_engine, load_artifact
from streams.recall.memory import MemoryIndex
from tests.unit.model.test_artifact import content


def test_an_artifact_of_another_encoder_is_refused(tmp_path: Path) -> None:
    other = save_artifact(tmp_path / "a", **content() | {"encoder": {"layers": 2}})
    with pytest.raises(FatalError, match="train the model again"):
        build_engine(load_worker().recall, other, MemoryIndex(other.model_version, other.dim))


def test_a_missing_artifact_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"python -m model\.train"):
        load_artifact(load_worker(overrides=[f"model.artifact={tmp_path / 'nowhere'}"]))


@pytest.mark.parametrize(
    ("setting", "remedy"), [("history.length=1", "set history.length to at least"), ("recall.interests=99", "at most")]
)
def test_settings_that_do_not_fit_the_artifact_are_refused(tmp_path: Path, setting: str, remedy: str) -> None:
    artifact = save_artifact(tmp_path / "a", **content())
    with pytest.raises(FatalError, match=remedy):
        load_artifact(load_worker(overrides=[f"model.artifact={artifact.path}", setting]))


def test_the_engine_serves_the_artifacts_items(tmp_path: Path) -> None:
    artifact: Artifact = save_artifact(tmp_path / "a", **content())
    index = MemoryIndex(artifact.model_version, artifact.dim)
    index.upsert(artifact.item_ids, artifact.item_vectors)
    engine = build_engine(load_worker(overrides=["recall.top_k=2"]).recall, artifact, index)
    (found,) = engine.recall([artifact.item_ids[:1]])
    assert found is not None
    assert len(found.item_ids) == 2
    assert artifact.item_ids[0] not in found.item_ids
