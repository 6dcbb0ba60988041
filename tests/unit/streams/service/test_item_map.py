"""The map of the items: sample, projection, file and places."""

from __future__ import annotations

import errno
import os
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from model.artifact import Artifact, save_artifact
from model.serving.norms import normalised
from streams.service import item_map
from streams.service.item_map import ItemMap, MapInBackground, project, sampled_rows
from tests.unit.streams.service.models import ROUTING

GROUPS, EACH, D = 3, 20, 8


def _groups() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return vectors of three groups in three directions."""
    centres = np.repeat(np.eye(D)[:GROUPS], EACH, axis=0)
    return normalised((centres + np.random.default_rng(0).normal(0, 0.05, centres.shape)).astype(np.float32))


def _artifact(folder: Path) -> Artifact:
    vectors = _groups()
    weights = {"bilinear": np.eye(D), "output": np.eye(D), "bias": np.zeros(D)}
    weights |= {"start": np.zeros((2, 3)), "recency": np.zeros(3)}
    return save_artifact(
        folder,
        weights={name: value.astype(np.float32) for name, value in weights.items()},
        interests=2,
        history_length=3,
        encoder=ROUTING.to_dict(),
        item_ids=np.arange(1, len(vectors) + 1),
        item_vectors=vectors,
        item_counts=np.ones(len(vectors), np.int64),
        users=1,
        clicks=1,
        config={},
    )


def _made(artifact: Artifact, folder: Path) -> MapInBackground:
    found = MapInBackground(artifact, folder)
    found.start()
    found._thread.join(120)
    return found


def test_the_sample_has_the_most_clicked_items_and_others_from_everywhere() -> None:
    counts = np.zeros(20_000, np.int64)
    counts[7_000:8_000] = np.arange(1_000, 0, -1)
    rows = sampled_rows(counts)
    assert len(rows) == item_map.SAMPLE
    assert set(range(7_000, 8_000)) <= set(rows.tolist())
    assert 0 in rows and 19_999 in rows
    np.testing.assert_array_equal(rows, sampled_rows(counts))
    np.testing.assert_array_equal(sampled_rows(np.ones(5, np.int64)), np.arange(5))


def test_similar_items_are_near_each_other() -> None:
    positions = project(_groups())
    assert np.abs(positions).max() == pytest.approx(1, abs=0.01)
    groups = positions.reshape(GROUPS, EACH, 2)
    within = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).max()
    centres = groups.mean(axis=1)
    between = min(np.linalg.norm(centres[a] - centres[b]) for a in range(GROUPS) for b in range(a))
    assert between > 2 * within


def test_the_map_is_computed_once_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = _artifact(tmp_path / "artifact")
    (tmp_path / "item-map-m0.npz").write_bytes(b"of an older model")
    background = MapInBackground(artifact, tmp_path)
    assert background.state() == ("computing", "") and background.map is None
    first = _made(artifact, tmp_path)
    assert first.state() == ("ready", "") and first.map is not None
    assert [path.name for path in tmp_path.glob("*.npz")] == [f"item-map-{artifact.model_version}.npz"]
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.setattr(item_map, "_compute", None)  # not called again
    second = _made(artifact, tmp_path)
    assert second.map is not None
    np.testing.assert_array_equal(first.map.positions, second.map.positions)


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    artifact = _artifact(tmp_path / "artifact")
    (tmp_path / f"item-map-{artifact.model_version}.npz").write_bytes(b"broken")
    assert _made(artifact, tmp_path).state() == ("ready", "")


def test_a_failed_computation_is_a_state_with_its_reason(tmp_path: Path) -> None:
    artifact = _artifact(tmp_path / "artifact")
    (tmp_path / "file").write_text("no folder")
    assert _made(artifact, tmp_path / "file").state() == (
        "failed",
        "it cannot be computed or stored (File exists); check service.data_dir, and restart the service",
    )


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no processes left"), MemoryError()])
def test_a_fault_in_the_thread_is_a_state_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(item_map, "_read", fail)
    state, fault = _made(_artifact(tmp_path / "artifact"), tmp_path).state()
    assert state == "failed" and ("no processes left" in fault or "MemoryError" in fault)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    artifact = _artifact(tmp_path / "artifact")
    receiver, sender = Pipe(duplex=False)
    monkeypatch.setattr(np, "savez", fail)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    item_map._compute(str(artifact.path), str(tmp_path / "maps" / "m.npz"), sender)
    assert receiver.recv().errno == errno.ENOSPC
    assert list((tmp_path / "maps").iterdir()) == []


def test_stopping_ends_the_computation(tmp_path: Path) -> None:
    background = MapInBackground(_artifact(tmp_path / "artifact"), tmp_path)
    background.start()
    background.stop()
    assert not background._thread.is_alive()


def test_sampled_items_are_where_they_were_projected_and_others_at_the_mean_of_their_nearest() -> None:
    vectors = _groups()
    positions = np.repeat(np.array([[-1, 0], [1, 0], [0, 1]], np.float32), EACH, axis=0)
    positions[0] = (-1, -1)
    found = ItemMap(np.arange(1, len(vectors) + 1), positions, vectors)
    at = found.place_items(np.array([1, 999]), np.stack([vectors[0], 2 * vectors[EACH]]))
    np.testing.assert_allclose(at, [[-1, -1], [1, 0]], atol=1e-6)
    between = found.place(np.ones((1, D), np.float32))
    assert np.isfinite(between).all() and np.abs(between).max() <= 1
    assert np.isfinite(found.place(np.zeros((1, D), np.float32))).all()
