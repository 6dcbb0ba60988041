"""The profile tower in NumPy: vectors, the blend with interests, and its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.artifact import Artifact
from model.artifact_folder import ArtifactError
from model.serving.attributes import Attribute, AttributeTable
from model.serving.profile import ProfileTower, save_tower
from tests.unit.model.profile.small import DIM, artifact

TABLE = AttributeTable(
    [Attribute("region", "category", values=("east", "north")), Attribute("age", "number", (), (40.0,))]
)


@pytest.fixture
def model(tmp_path: Path) -> Artifact:
    return artifact(tmp_path / "artifact")


def tower(hidden: int = 0, pseudo_clicks: float = 2.0) -> ProfileTower:
    rng = np.random.default_rng(1)
    shapes = {"table": (TABLE.size, hidden or DIM), "bias": (hidden or DIM,)}
    shapes |= {"output": (hidden, DIM), "output_bias": (DIM,)} if hidden else {}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return ProfileTower(TABLE, weights, unit=True, pseudo_clicks=pseudo_clicks, manifest={})


def test_a_vector_is_the_sum_of_its_attributes_at_length_1() -> None:
    one = tower()
    total = one.weights["bias"] + one.weights["table"][2] + one.weights["table"][5]
    vectors = one.vectors([{"region": "north", "age": 40, "other": [1]}, {}, {"region": "moon"}])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], total / np.linalg.norm(total), rtol=1e-5)
    np.testing.assert_array_equal(vectors[1], vectors[2])
    assert one.vectors([]).shape == (0, DIM)


@pytest.mark.parametrize("hidden", [0, 3, DIM])
def test_a_tower_is_read_back(model: Artifact, hidden: int) -> None:
    made = tower(hidden)
    read = save_tower(model, made, {"seed": 1}, {"recall@50": 0.5})
    profiles = [{"region": "east", "age": 7}, {}]
    np.testing.assert_array_equal(ProfileTower.load(model).vectors(profiles), made.vectors(profiles))
    assert read.pseudo_clicks == 2.0 and read.manifest["metrics"] == {"recall@50": 0.5}
    assert Artifact.load(model.path).model_version == model.model_version


def test_the_weight_of_the_profile_falls_with_the_clicks() -> None:
    np.testing.assert_allclose(tower().share(np.array([0, 1, 2, 8])), [1, 2 / 3, 1 / 2, 1 / 5])
    np.testing.assert_allclose(tower(pseudo_clicks=0).share(np.array([0, 1])), [1, 0])


def test_a_blend_is_between_profile_and_interests() -> None:
    rng = np.random.default_rng(2)
    interests = rng.normal(size=(4, 3, DIM)).astype(np.float32)
    interests /= np.linalg.norm(interests, axis=2, keepdims=True)
    interests[0] = 0
    vectors = tower().vectors([{"region": "east"}, {"region": "east"}, {"age": 3}, {}])
    vectors[3] = 0
    blended = tower().blend(interests, vectors, np.array([0, 2, 2, 5]))
    np.testing.assert_allclose(blended[0], np.tile(vectors[0], (3, 1)), rtol=1e-5)
    half = interests[1] + vectors[1]
    np.testing.assert_allclose(blended[1], half / np.linalg.norm(half, axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(blended[3], interests[3], rtol=1e-5)


def test_a_tower_of_another_version_is_refused(model: Artifact, tmp_path: Path) -> None:
    save_tower(model, tower(), {}, {})
    other = artifact(tmp_path / "other", seed=5)
    (model.path / "profile").rename(other.path / "profile")
    with pytest.raises(ArtifactError, match=f"trained for model {model.model_version}.*{other.model_version}.*again"):
        ProfileTower.load(other)


def test_missing_and_damaged_towers_are_named(model: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"no artifact here.*python -m model\.profile"):
        ProfileTower.load(model)
    save_tower(model, tower(), {}, {})
    manifest = model.path / "profile" / "manifest.json"
    changed = json.loads(manifest.read_text()) | {"pseudo_clicks": 9.0}
    manifest.write_text(json.dumps(changed))
    with pytest.raises(ArtifactError, match="was changed after training"):
        ProfileTower.load(model)
    save_tower(model, tower(), {}, {})
    (model.path / "profile" / "weights.npz").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        ProfileTower.load(model)


def test_weights_of_other_shapes_are_refused(model: Artifact) -> None:
    made = tower()
    wrong = {**made.weights, "bias": np.zeros(DIM + 1, np.float32)}
    with pytest.raises(ArtifactError, match="shapes"):
        save_tower(model, ProfileTower(TABLE, wrong, True, 1.0, {}), {}, {})


def test_serving_needs_no_paddle() -> None:
    code = "import sys; sys.modules['paddle'] = None\nimport model.serving.profile"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
