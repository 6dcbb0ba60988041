"""The norms that items may have: of models that normalise, and of models with free norms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.data import random_artifact
from model.arrays import FloatMatrix
from model.artifact import Artifact, save_artifact
from model.serving.norms import LONGEST_FACTOR, Norms, normalised, norms_of


@pytest.fixture
def unit_vectors() -> FloatMatrix:
    vectors = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    return normalised(vectors)


def _free(folder: Path, vectors: FloatMatrix) -> Artifact:
    return save_artifact(
        folder / "free",
        weights={},
        interests=1,
        history_length=1,
        encoder={"normalise": False},
        item_ids=np.arange(1, len(vectors) + 1),
        item_vectors=vectors,
        item_counts=np.ones(len(vectors), np.int64),
        users=1,
        clicks=1,
        config={},
    )


def test_where_the_model_normalises_rounded_vectors_pass_and_others_do_not(
    tmp_path: Path, unit_vectors: FloatMatrix
) -> None:
    norms = Norms.from_artifact(random_artifact(tmp_path / "unit", 10, 64))
    halves = unit_vectors.astype(np.float16).astype(np.float32)
    truncated = (unit_vectors.view(np.uint32) & 0xFFFF0000).view(np.float32)  # the coarsest way to bfloat16
    for rounded in (unit_vectors, halves, truncated, unit_vectors.round(4)):
        assert norms.accept(rounded).all()
        assert [norms.fault(vector) for vector in rounded[:10]] == [None] * 10
    for scale in (100, 1.05, 0.95, 0.001, 1e38, np.inf, np.nan):
        assert not norms.accept(unit_vectors * np.float32(scale)).any()
        fault = norms.fault(unit_vectors[0] * np.float32(scale))
        assert fault is not None and "norm 1" in fault and f"norm {scale:.3g}"[:7] in fault


def test_where_norms_are_free_only_far_longer_vectors_are_refused(tmp_path: Path, unit_vectors: FloatMatrix) -> None:
    norms = Norms.from_artifact(_free(tmp_path, unit_vectors * np.linspace(0.1, 5, 1000, dtype=np.float32)[:, None]))
    assert norms.highest == pytest.approx(LONGEST_FACTOR * 5)
    assert norms.accept(unit_vectors[:1] * np.array([[0.001], [5], [49]], np.float32)).all()
    for scale in (51, 1e38, np.inf, np.nan):
        fault = norms.fault(unit_vectors[0] * np.float32(scale))
        assert fault is not None and "longest of the model's vectors, 5" in fault


def test_norms_of_large_vectors_do_not_overflow() -> None:
    assert norms_of(np.full((1, 64), 1e38, np.float32)) == pytest.approx(8e38)


def test_normalising_leaves_vectors_without_direction_as_they_are() -> None:
    vectors = np.array([[3, 4], [0, 0], [1e38, 1e38], [np.inf, 1]], np.float32)
    np.testing.assert_allclose(
        normalised(vectors), [[0.6, 0.8], [0.0, 0.0], [0.5**0.5, 0.5**0.5], [np.inf, 1.0]], rtol=1e-6
    )
    np.testing.assert_allclose(normalised(vectors[0]), [0.6, 0.8], rtol=1e-6)
