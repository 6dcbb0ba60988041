"""Artifacts of the fusion model are written, read, and refused if they are unusable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.artifact import Artifact
from model.artifact_folder import ArtifactError
from model.fusion.artifact import FusionArtifact
from model.fusion.profiles import Profile
from model.fusion.vocabulary import FilmInputs
from tests.unit.model.fusion.small import ratings, saved, trained


@pytest.fixture
def artifact(tmp_path: Path) -> FusionArtifact:
    return saved(tmp_path / "fusion")


def test_a_loaded_artifact_equals_the_model(artifact: FusionArtifact) -> None:
    model, data = trained(), ratings()[0]
    assert artifact.weights.keys() == model.weights.keys()
    assert all((artifact.weights[name] == model.weights[name]).all() for name in model.weights)
    assert artifact.vocabulary == model.vocabulary
    assert (artifact.user_ids == data.user_ids).all()
    assert (artifact.item_vectors == model.film_vectors).all()
    np.testing.assert_allclose(np.linalg.norm(artifact.item_vectors, axis=1), 1, atol=1e-5)
    assert artifact.dim == 16 and artifact.manifest["config"] == {"seed": 1}


def test_the_version_is_decided_by_the_content(artifact: FusionArtifact, tmp_path: Path) -> None:
    assert saved(tmp_path / "same").model_version == artifact.model_version
    assert saved(tmp_path / "other", word=2 * trained().weights["word"]).model_version != artifact.model_version


def test_a_new_user_has_the_vector_of_the_attributes(artifact: FusionArtifact) -> None:
    data, model = ratings()[0], trained()
    new = np.flatnonzero((model.weights["user"][1:] == model.weights["user"][0]).all(axis=1))[:5]
    vectors = artifact.new_users([data.profiles[user] for user in new])
    np.testing.assert_allclose(vectors, model.user_vectors(new), atol=1e-6)
    assert not np.allclose(artifact.new_users([Profile(0, 0, 0)]), artifact.new_users([Profile(1, 6, 20)]), atol=1e-2)


def test_films_have_their_vectors_and_unknown_ones_get_one_by_genres_and_title(artifact: FusionArtifact) -> None:
    films = trained().films
    np.testing.assert_allclose(artifact.films(artifact.item_ids, films), artifact.item_vectors, atol=1e-6)
    unknown = artifact.films(np.array([10**6]), FilmInputs(films.genres[:1], films.words[:1]))
    assert not np.allclose(unknown[0], artifact.item_vectors[0], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(unknown), 1, atol=1e-5)


def test_a_changed_file_is_refused(artifact: FusionArtifact) -> None:
    (artifact.path / "vocabulary.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"vocabulary\.json does not match.*python -m model\.fusion\.train"):
        FusionArtifact.load(artifact.path)


def test_each_kind_of_artifact_refuses_the_other(artifact: FusionArtifact) -> None:
    with pytest.raises(ArtifactError, match="format fusion 1, this version reads format 1; train again"):
        Artifact.load(artifact.path)
    manifest = artifact.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fusion 1"', "1"))
    with pytest.raises(ArtifactError, match="format 1, this version reads format fusion 1"):
        FusionArtifact.load(artifact.path)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"not written: training diverged"):
        saved(tmp_path / "fusion", word=np.full_like(trained().weights["word"], np.nan))
    assert not (tmp_path / "fusion").exists()
