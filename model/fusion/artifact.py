"""The trained fusion model as a folder that describes itself; recommending needs nothing else, and no Paddle.

manifest.json      dimensions, counts, the resolved configuration, and a checksum of each other file
weights.npz        weights of both towers (`model.fusion.towers`), and the embeddings of the ids: `user` and `film`,
                   with row 0 for new users and films
vocabulary.json    genres, and words of titles
user_ids.npy       (U,) int64, ascending; user i has row i + 1
item_ids.npy       (N,) int64, ascending; film i has row i + 1
item_vectors.npy   (N, D) float32, of length 1
item_counts.npy    (N,) int64, ratings of each film in training
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.arrays import FloatArray, FloatMatrix, IdVector, IntVector
from model.artifact_folder import ArtifactError, Layout, check_target
from model.fusion.profiles import Profile
from model.fusion.towers import film_vectors, user_vectors
from model.fusion.vocabulary import FilmInputs, Vocabulary

LAYOUT = Layout(
    format="fusion 1",
    files=("weights.npz", "vocabulary.json", "user_ids.npy", "item_ids.npy", "item_vectors.npy", "item_counts.npy"),
    identity=("format", "metric", "dim", "items", "sha256"),
    remedy="train again: python -m model.fusion.train --data FOLDER",
)
METRIC = "IP"


@dataclass(frozen=True, eq=False)
class FusionArtifact:
    """A loaded artifact.

    Attributes:
        model_version: "m" and 12 hexadecimal digits, a hash of the content.
        dim: D, numbers in a vector.
        manifest: the whole manifest. The arrays are described at the top of this module.
    """

    path: Path
    model_version: str
    dim: int
    manifest: dict[str, Any]
    weights: dict[str, FloatArray]
    vocabulary: Vocabulary
    user_ids: IdVector
    item_ids: IdVector
    item_vectors: FloatMatrix
    item_counts: IntVector

    @classmethod
    def load(cls, path: Path | str) -> FusionArtifact:
        """Read an artifact and verify its checksums.

        Raises:
            ArtifactError: the artifact is missing, damaged, or of another format, such as MIND's.
        """
        folder = Path(path).resolve()
        manifest = LAYOUT.read(folder, verify=True)
        try:
            arrays = [
                np.load(folder / f"{name}.npy", allow_pickle=False)
                for name in ("user_ids", "item_ids", "item_vectors", "item_counts")
            ]
            with (folder / "weights.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
                weights = dict(stored)
            vocabulary = Vocabulary.from_dict(json.loads((folder / "vocabulary.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{folder}: damaged ({error}); copy it again, or {LAYOUT.remedy}") from None
        return cls(folder, manifest["model_version"], manifest["dim"], manifest, weights, vocabulary, *arrays)

    def new_users(self, profiles: Sequence[Profile]) -> FloatMatrix:
        """Return vectors, (n, D), of users of whom only the attributes are known."""
        ids = np.repeat(self.weights["user"][:1], len(profiles), axis=0)
        return user_vectors(self.weights, ids, np.array(profiles, np.int64).reshape(-1, 3))

    def films(self, ids: IdVector, films: FilmInputs) -> FloatMatrix:
        """Return vectors, (n, D), of films; those that were not in training have row 0."""
        row = np.minimum(np.searchsorted(self.item_ids, ids), len(self.item_ids) - 1)
        rows = np.where(self.item_ids[row] == ids, row + 1, 0)
        return film_vectors(self.weights, self.weights["film"][rows], films)


def save_artifact(
    path: Path | str,
    *,
    weights: Mapping[str, FloatArray],
    vocabulary: Vocabulary,
    user_ids: IdVector,
    item_ids: IdVector,
    films: FilmInputs,
    item_counts: IntVector,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    skipped: Sequence[Mapping[str, Any]] = (),
) -> FusionArtifact:
    """Write an artifact; an older one at `path` is replaced.

    Args:
        weights, …, item_counts: as in `FusionArtifact`; films: all N films.
        config: resolved configuration; metrics: measured quality; skipped: malformed lines
            (`MalformedLines.figures`). All three are only recorded in the manifest.

    Raises:
        ArtifactError: `path` holds something else, or numbers are not finite.
    """
    folder = Path(path).resolve()
    check_target(folder)
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise ArtifactError(f"{folder}: not written: training diverged (NaN or infinity); lower training.learning_rate")
    vectors = film_vectors(weights, weights["film"][1:], films)

    def write_files(draft: Path) -> None:
        np.savez(draft / "weights.npz", **{name: weights[name] for name in sorted(weights)})  # type: ignore[arg-type]
        (draft / "vocabulary.json").write_text(json.dumps(vocabulary.to_dict()) + "\n", encoding="utf-8")
        np.save(draft / "user_ids.npy", user_ids)
        np.save(draft / "item_ids.npy", item_ids)
        np.save(draft / "item_vectors.npy", vectors)
        np.save(draft / "item_counts.npy", item_counts)

    described = {"metric": METRIC, "dim": vectors.shape[1], "items": len(item_ids)}
    recorded = {
        "users": len(user_ids),
        "ratings": int(item_counts.sum()),
        "config": dict(config),
        "metrics": dict(metrics),
        "skipped": list(skipped),
    }
    LAYOUT.write(folder, write_files, described, recorded)
    return FusionArtifact.load(folder)
