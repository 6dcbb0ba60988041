"""A map of the items: a projection of their vectors to two dimensions, computed once for a model, in the background.

PCA and t-SNE (scikit-learn) place a sample: the most clicked items, and others at equal distances in the catalogue, so
that the same model gives the same sample. t-SNE has no formula for other vectors. So items outside the sample, items
published later and interests are placed at the mean of their `NEIGHBOURS` nearest sampled items by cosine, the nearer
ones with more weight. What is near on the map is near for the model; distances between clusters mean little.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np

from model.arrays import FloatMatrix, IdVector, IntVector
from model.artifact import Artifact
from model.serving.norms import normalised

_LOG = logging.getLogger("mindstream.service")

#: Items in the sample, and the share of them that are the most clicked ones.
SAMPLE, POPULAR_SHARE = 3_000, 0.5
#: Sampled items whose mean places another vector, and the sharpness of their weights, exp(sharpness · cosine).
NEIGHBOURS, SHARPNESS = 5, 20.0
#: Dimensions between PCA and t-SNE, and t-SNE's perplexity: about the number of neighbours that it preserves.
PCA_DIMENSIONS, PERPLEXITY = 50, 30.0
#: Sampled items below which there is no map: there is nothing to see.
FEWEST = 10
#: Added to the niceness of the process that computes: requests come first.
_NICENESS = 15

State = Literal["computing", "ready", "failed"]


class ItemMap:
    """Places vectors on the map. Thread-safe.

    Args:
        ids: (S,) the sampled items.
        positions: (S, 2) float32, from -1 to 1.
        vectors: (S, D) float32, their vectors.
    """

    def __init__(self, ids: IdVector, positions: FloatMatrix, vectors: FloatMatrix) -> None:
        self.ids = ids
        self.positions = positions
        self._vectors = normalised(vectors)
        self._rows = {item: row for row, item in enumerate(ids.tolist())}

    def place(self, vectors: FloatMatrix) -> FloatMatrix:
        """Return the positions of (n, D) vectors, (n, 2): the weighted mean of their nearest sampled items."""
        cosines = normalised(vectors) @ self._vectors.T  # (n, S)
        n = min(NEIGHBOURS, len(self.ids))
        nearest = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
        near = np.take_along_axis(cosines, nearest, axis=1)
        weights = np.exp(SHARPNESS * (near - near.max(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        placed: FloatMatrix = np.einsum("ns,nsd->nd", weights, self.positions[nearest]).astype(np.float32)
        return placed

    def place_items(self, ids: IdVector, vectors: FloatMatrix) -> FloatMatrix:
        """Return the positions of (n,) items with (n, D) vectors, (n, 2): sampled ones where the map has them."""
        placed = self.place(vectors)
        for i, item in enumerate(ids.tolist()):
            if item in self._rows:
                placed[i] = self.positions[self._rows[item]]
        return placed


class Sample(NamedTuple):
    """A projection as it is stored."""

    ids: IdVector
    positions: FloatMatrix


class MapInBackground:
    """Computes the map of a model in a process of its own, or reads it from the file of an earlier start.

    Args:
        artifact: the model.
        folder: for the file, which is named by the model version; files of other versions are deleted.
    """

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        self._artifact = artifact
        self._path = folder / f"item-map-{artifact.model_version}.npz"
        self._map: ItemMap | None = None
        self._fault = ""
        self._process: BaseProcess | None = None
        self._thread = threading.Thread(target=self._run, name="item-map", daemon=True)

    @property
    def map(self) -> ItemMap | None:
        """The map; None while it is computed, or if that failed."""
        return self._map

    def state(self) -> tuple[State, str]:
        """Return the state, and what failed, with the remedy."""
        if self._map is not None:
            return "ready", ""
        return ("failed", self._fault) if self._fault else ("computing", "")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the computation; the next start begins it again."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._make()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page must not wait for a map that never comes
            self._fault = _reason(error)
            _LOG.error("no map of the items: %s", error, exc_info=None if isinstance(error, OSError) else error)

    def _make(self) -> None:
        sample = _read(self._path, self._artifact)
        if sample is None:
            if min(SAMPLE, len(self._artifact.item_ids)) < FEWEST:
                self._fault = f"the model has fewer than {FEWEST} items: too few for a map"
                return
            # Spawned: a fork of a process with threads may hang.
            context = multiprocessing.get_context("spawn")
            faults, sender = context.Pipe(duplex=False)
            with faults, sender:
                arguments = (str(self._artifact.path), str(self._path), sender)
                self._process = context.Process(target=_compute, args=arguments, daemon=True)
                self._process.start()
                self._process.join()
                if faults.poll():
                    raise faults.recv()
            sample = _read(self._path, self._artifact)
        if sample is None:
            status = None if self._process is None else self._process.exitcode
            self._fault = f"the computation ended with status {status}; see the log, and restart the service"
            _LOG.error("no map of the items: %s", self._fault)
            return
        rows = self._artifact.rows(sample.ids)
        self._map = ItemMap(sample.ids, sample.positions, np.asarray(self._artifact.item_vectors[rows]))


def _reason(error: Exception) -> str:
    """Return why there is no map, with the remedy; without paths, which are not for browsers."""
    if isinstance(error, OSError):
        why = error.strerror or type(error).__name__
        return f"it cannot be computed or stored ({why}); check service.data_dir, and restart the service"
    return f"the computation failed ({type(error).__name__}); see the log, and restart the service"


def sampled_rows(counts: IdVector) -> IntVector:
    """Return the rows of the items in the sample, ascending, for (N,) clicks of each item."""
    N = len(counts)
    if N <= SAMPLE:
        return np.arange(N)
    popular = np.argsort(-counts, kind="stable")[: int(SAMPLE * POPULAR_SHARE)]
    others = np.setdiff1d(np.arange(N), popular)
    spread = others[np.linspace(0, len(others) - 1, SAMPLE - len(popular)).astype(np.int64)]
    return np.union1d(popular, spread)


def project(vectors: FloatMatrix) -> FloatMatrix:
    """Return the positions of (S, D) vectors, (S, 2) float32 from -1 to 1, by PCA and t-SNE; by direction only."""
    from sklearn.decomposition import PCA  # takes a second to load, and only this process needs it
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    units = normalised(vectors)
    S, D = units.shape
    with threadpool_limits(1):
        reduced = PCA(min(PCA_DIMENSIONS, S, D), random_state=0).fit_transform(units)
        perplexity = min(PERPLEXITY, (S - 1) / 3)
        placed = TSNE(perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(reduced)
    centred = placed - (placed.max(axis=0) + placed.min(axis=0)) / 2
    positions: FloatMatrix = (centred / max(float(np.abs(centred).max()), 1e-9)).astype(np.float32)
    return positions


def _compute(artifact_path: str, target: str, faults: Connection) -> None:
    """Compute a map and write it, or send the OSError that prevents it; run in a process of its own."""
    os.nice(_NICENESS)
    artifact, path = Artifact.load(artifact_path, verify=False), Path(target)
    rows = sampled_rows(artifact.item_counts)
    positions = project(np.asarray(artifact.item_vectors[rows]))
    try:
        _write(path, Sample(artifact.item_ids[rows], positions))
    except OSError as error:
        faults.send(error)


def _write(path: Path, sample: Sample) -> None:
    """Write a projection atomically, and delete those of other models."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            np.savez(file, **sample._asdict())
            file.flush()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    for other in path.parent.glob("item-map-*.npz"):
        if other != path:
            other.unlink(missing_ok=True)


def _read(path: Path, artifact: Artifact) -> Sample | None:
    """Read a stored projection; None if there is none, or it is damaged or not of this model."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            sample = Sample(stored["ids"], stored["positions"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        _LOG.warning("%s is damaged (%s): the map is computed again", path, error)
        return None
    fits = sample.positions.shape == (len(sample.ids), 2) and (artifact.rows(sample.ids) >= 0).all()
    return sample if fits else None
