"""The profile tower: attributes of a user → a vector in the item space of a MIND model, in NumPy, without Paddle.

It is stored in the folder `profile` of the model's artifact, and belongs to this model only:

    manifest.json      dimensions, attributes with their values, the model's version, the configuration, checksums
    weights.npz        weights of the tower

Weights, all float32; R rows of attributes, H numbers of the hidden layer, D numbers of a vector: `table` (R, D) and
`bias` (D,); with a hidden layer `table` (R, H), `bias` (H,), `output` (H, D), `output_bias` (D,).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.arrays import DoubleArray, FloatArray, FloatMatrix, IntVector
from model.artifact import Artifact
from model.artifact_folder import ArtifactError, Layout
from model.serving.attributes import Attribute, AttributeTable, Profile

#: Name of the folder in that of the artifact.
FOLDER = "profile"
REMEDY = "train the tower again: python -m model.profile -c configs/profile-movielens.yaml"
LAYOUT = Layout(
    format="profile 1",
    files=("weights.npz",),
    identity=("format", "item_space", "dim", "unit", "attributes", "pseudo_clicks", "sha256"),
    remedy=REMEDY,
)
#: Added to squared lengths, so that a zero vector stays 0 instead of becoming NaN.
EPSILON = 1e-12


@dataclass(frozen=True, eq=False)
class ProfileTower:
    """A loaded tower.

    Attributes:
        table: rows of the attributes. weights: see the top of this module.
        unit: vectors have length 1, as those of the model's items.
        pseudo_clicks: the profile counts as much as so many clicks when it is blended with interests.
        manifest: the whole manifest; empty before the tower is saved.
    """

    table: AttributeTable
    weights: Mapping[str, FloatArray]
    unit: bool
    pseudo_clicks: float
    manifest: Mapping[str, Any]

    @classmethod
    def load(cls, artifact: Artifact) -> ProfileTower:
        """Read the tower of a model, and verify its checksum.

        Raises:
            ArtifactError: the tower is missing, damaged, or was trained for another model.
        """
        folder = artifact.path / FOLDER
        manifest = LAYOUT.read(folder, verify=True)
        if manifest["item_space"] != artifact.model_version:
            raise ArtifactError(
                f"{folder}: was trained for model {manifest['item_space']}, and {artifact.path} is model "
                f"{artifact.model_version}: vectors of different models cannot be compared; {REMEDY}"
            )
        try:
            with (folder / "weights.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
                weights = dict(stored)
            table = AttributeTable([Attribute.from_dict(one) for one in manifest["attributes"]])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{folder}: damaged ({error}); copy it again, or {REMEDY}") from None
        _check_shapes(folder, weights, table.size, artifact.dim)
        return cls(table, weights, manifest["unit"], manifest["pseudo_clicks"], manifest)

    def vectors(self, profiles: Sequence[Profile]) -> FloatMatrix:
        """Return vectors in the item space, (B, D) float32, of users of whom only the attributes are known.

        Attributes that are missing or have an unknown value are allowed; without any known one, the vector is that of
        an average user.

        Raises:
            ValueError: a value is of another kind than its attribute; the message names both.
        """
        rows, shares, _ = self.table.encode(profiles)
        total = self.weights["bias"] + np.einsum("bs,bsh->bh", shares, self.weights["table"][rows])
        if "output" in self.weights:
            total = np.maximum(total, np.float32(0)) @ self.weights["output"] + self.weights["output_bias"]
        return _unit(total) if self.unit else total

    def share(self, clicks: IntVector | int) -> DoubleArray:
        """Return the weight of the profile beside (B,) numbers of clicks, (B,) float64: p / (p + clicks)."""
        if not self.pseudo_clicks:
            return np.equal(clicks, 0).astype(np.float64)
        return np.asarray(self.pseudo_clicks / (self.pseudo_clicks + clicks))

    def blend(self, interests: FloatArray, vectors: FloatMatrix, clicks: IntVector) -> FloatArray:
        """Return interests with the profile as a further click, (B, K, D) float32.

        Args:
            interests: (B, K, D), zeros for a user without clicks; vectors: (B, D), from `vectors`, zeros for a user
                without a profile; clicks: (B,), numbers of clicks that the interests are of.
        """
        share = np.where(vectors.any(axis=1), self.share(clicks), 0).astype(np.float32)[:, None, None]
        mixed: FloatArray = (1 - share) * interests + share * vectors[:, None]
        return _unit(mixed) if self.unit else mixed


def save_tower(
    artifact: Artifact, tower: ProfileTower, config: Mapping[str, Any], metrics: Mapping[str, float]
) -> ProfileTower:
    """Write the tower into the folder of its model; an older one there is replaced.

    Args:
        config: resolved configuration; metrics: measured quality. Both are only recorded in the manifest.

    Raises:
        ArtifactError: the folder holds something else.
    """

    def write_files(draft: Path) -> None:
        weights = {name: tower.weights[name] for name in sorted(tower.weights)}
        np.savez(draft / "weights.npz", **weights)  # type: ignore[arg-type]

    described = {
        "item_space": artifact.model_version,
        "dim": artifact.dim,
        "unit": tower.unit,
        "attributes": [one.to_dict() for one in tower.table.attributes],
        "pseudo_clicks": tower.pseudo_clicks,
    }
    LAYOUT.write(artifact.path / FOLDER, write_files, described, {"config": dict(config), "metrics": dict(metrics)})
    return ProfileTower.load(artifact)


def _check_shapes(folder: Path, weights: Mapping[str, FloatArray], rows: int, dim: int) -> None:
    shapes = {name: one.shape for name, one in weights.items()}
    hidden = shapes.get("bias", (0,))[0]
    expected = {"table": (rows, hidden), "bias": (hidden,)}
    if hidden != dim or "output" in shapes:
        expected |= {"output": (hidden, dim), "output_bias": (dim,)}
    if shapes != expected:
        raise ArtifactError(f"{folder}: the shapes of the weights do not fit together; {REMEDY}")


def _unit(vectors: FloatArray) -> FloatArray:
    square = np.einsum("...d,...d->...", vectors, vectors)[..., None]
    scaled: FloatArray = vectors / np.sqrt(square + np.float32(EPSILON))
    return scaled
