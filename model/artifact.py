"""The trained model as a folder that describes itself; serving reads nothing else.

    manifest.json      dimensions, counts, the resolved configuration, and a checksum of each other file
    weights.npz        weights of the encoder
    item_ids.npy       (N,) int64, ascending
    item_vectors.npy   (N, D) float32, row i belongs to item_ids[i]; memory-mapped by readers
    item_counts.npy    (N,) int64, clicks of each item in training

The item vectors are exactly what the network reads as history and scores as targets. So a vector read from the index
can replace the artifact's, and the inner product is the score: higher = nearer.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.arrays import FloatArray, IdVector
from model.artifact_folder import ArtifactError, Layout, check_target

FILES = ("weights.npz", "item_ids.npy", "item_vectors.npy", "item_counts.npy")
METRIC = "IP"
LAYOUT = Layout(
    format=1,
    files=FILES,
    identity=("format", "metric", "dim", "interests", "history_length", "items", "encoder", "sha256"),
    remedy="train again: python -m model.train -c configs/mind.yaml",
)
#: Rows are looked up in a table indexed by id if the range of the ids is less than this many times the number of items.
_MAX_IDS_PER_ITEM = 4


@dataclass(frozen=True, eq=False)
class Artifact:
    """A loaded artifact.

    Attributes:
        model_version: "m" and 12 hexadecimal digits, a hash of the content.
        dim: D, numbers in a vector. interests: K, vectors per user. history_length: L, newest clicks that are read.
        metric: "IP", the inner product.
        encoder: description of the encoder's computation (`model.serving.encoder.Routing`).
        manifest: the whole manifest.
        item_ids: (N,) int64. item_vectors: (N, D) float32, read-only memory map. item_counts: (N,) int64.
        weights: arrays of the encoder by name, float32.
    """

    path: Path
    model_version: str
    dim: int
    interests: int
    history_length: int
    metric: str
    encoder: dict[str, Any]
    manifest: dict[str, Any]
    item_ids: IdVector
    item_vectors: FloatArray
    item_counts: IdVector
    weights: dict[str, FloatArray]

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> Artifact:
        """Read an artifact. With `verify`, read every byte and compare the checksums.

        Raises:
            ArtifactError: the artifact is missing, damaged, of another format, or its parts do not fit together.
        """
        folder = Path(path).resolve()
        manifest = LAYOUT.read(folder, verify=verify)
        try:
            ids = np.load(folder / "item_ids.npy", allow_pickle=False)
            vectors = np.load(folder / "item_vectors.npy", mmap_mode="r", allow_pickle=False)
            counts = np.load(folder / "item_counts.npy", allow_pickle=False)
            with (folder / "weights.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
                weights = dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{folder}: damaged ({error}); copy it again, or {LAYOUT.remedy}") from None
        artifact = cls(
            folder,
            manifest["model_version"],
            manifest["dim"],
            manifest["interests"],
            manifest["history_length"],
            manifest["metric"],
            manifest["encoder"],
            manifest,
            ids,
            vectors,
            counts,
            weights,
        )
        _check_arrays(folder, ids, vectors, counts, (manifest["items"], artifact.dim))
        return artifact

    def rows(self, ids: IdVector) -> IdVector:
        """Return the rows of `item_vectors` for (n,) item ids: (n,) int64, -1 for ids that the model does not know."""
        if self._row_by_id is None:
            rows = np.minimum(np.searchsorted(self.item_ids, ids), len(self.item_ids) - 1)
            return np.where(self.item_ids[rows] == ids, rows, -1).astype(np.int64)
        first, last = self.item_ids[0], self.item_ids[-1]
        rows = self._row_by_id.take(np.clip(ids, first, last) - first)
        return np.where((first <= ids) & (ids <= last), rows, -1)

    @cached_property
    def _row_by_id(self) -> IdVector | None:
        """Row of each id from the smallest to the largest, -1 in gaps; None if most are gaps, as among hashed ids.

        A binary search takes ten times as long; it would be a third of the time from a history to its interests.
        """
        first, last = int(self.item_ids[0]), int(self.item_ids[-1])
        if last - first >= _MAX_IDS_PER_ITEM * len(self.item_ids):
            return None
        rows = np.full(last - first + 1, -1, dtype=np.int64)
        rows[self.item_ids - first] = np.arange(len(self.item_ids))
        return rows


# Longer than 50 lines: thirteen parameters and eleven keys of the manifest, one on each line.
def save_artifact(
    path: Path | str,
    *,
    weights: Mapping[str, FloatArray],
    interests: int,
    history_length: int,
    encoder: Mapping[str, Any],
    item_ids: IdVector,
    item_vectors: FloatArray,
    item_counts: IdVector,
    users: int,
    clicks: int,
    config: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    skipped: Sequence[Mapping[str, Any]] = (),
) -> Artifact:
    """Write an artifact under a temporary name, then rename it; an older artifact at `path` is replaced.

    Args:
        weights, interests, …, item_counts: as in `Artifact`.
        users, clicks: numbers of users and clicks that the model was trained on.
        config: resolved configuration; metrics: measured quality; skipped: malformed lines of the click files
            (`MalformedLines.figures`). All three are only recorded in the manifest.

    Raises:
        ArtifactError: `path` holds something else, the arrays do not fit together, or numbers are not finite.
    """
    folder = Path(path).resolve()
    check_target(folder)
    _check_arrays(folder, item_ids, item_vectors, item_counts, (len(item_ids), item_vectors.shape[-1]))
    if not all(np.isfinite(array).all() for array in (item_vectors, *weights.values())):
        raise ArtifactError(f"{folder}: not written: training diverged (NaN or infinity); lower training.learning_rate")

    def write_files(draft: Path) -> None:
        np.savez(draft / "weights.npz", **{name: weights[name] for name in sorted(weights)})  # type: ignore[arg-type]
        np.save(draft / "item_ids.npy", item_ids)
        np.save(draft / "item_vectors.npy", item_vectors)
        np.save(draft / "item_counts.npy", item_counts)

    described = {
        "metric": METRIC,
        "dim": item_vectors.shape[1],
        "interests": interests,
        "history_length": history_length,
        "items": len(item_ids),
        "encoder": dict(encoder),
    }
    recorded = {
        "users": users,
        "clicks": clicks,
        "config": dict(config),
        "metrics": dict(metrics or {}),
        "skipped": list(skipped),
    }
    LAYOUT.write(folder, write_files, described, recorded)
    return Artifact.load(folder, verify=False)


def _check_arrays(folder: Path, ids: IdVector, vectors: FloatArray, counts: IdVector, shape: tuple[int, int]) -> None:
    fits = (
        (ids.shape, vectors.shape, counts.shape) == (shape[:1], shape, shape[:1])
        and [array.dtype.str for array in (ids, vectors, counts)] == ["<i8", "<f4", "<i8"]
        and min(shape) > 0
        and bool((ids[1:] > ids[:-1]).all())
        and bool(ids.all())
    )
    if not fits:
        expected = "ids (N,) int64 ascending and not 0, vectors (N, D) float32, counts (N,) int64, N and D at least 1"
        raise ArtifactError(f"{folder}: the item arrays do not fit together; expected {expected}; {LAYOUT.remedy}")
