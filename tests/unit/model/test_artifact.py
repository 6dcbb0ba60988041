"""Artifacts are written, read, and refused if they are unusable."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.artifact import FILES, Artifact, save_artifact
from model.artifact_folder import ArtifactError, check_target
from model.serving.encoder import Encoder

D, K, L, N = 4, 2, 3, 5
ROUTING: dict[str, Any] = {
    "iterations": 3,
    "temperature": 0.2,
    "axis": "interests",
    "normalise": True,
    "relu": False,
    "residual": 0.0,
    "by_history": False,
}


def content(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"bilinear": (D, D), "start": (K, L), "recency": (L,), "output": (D, D), "bias": (D,)}
    return {
        "weights": {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()},
        "interests": K,
        "history_length": L,
        "encoder": ROUTING,
        "item_ids": np.array([-7, 2, 3, 50, 2**62]),
        "item_vectors": rng.standard_normal((N, D), dtype=np.float32),
        "item_counts": np.array([9, 1, 4, 1, 1]),
        "users": 6,
        "clicks": 16,
        "config": {"training": {"seed": 1}},
        "metrics": {"recall@50": 0.25},
    }


@pytest.fixture
def saved(tmp_path: Path) -> Artifact:
    return save_artifact(tmp_path / "a", **content())


def test_a_loaded_artifact_equals_the_saved_one(saved: Artifact) -> None:
    written, loaded = content(), Artifact.load(saved.path)
    for name in ("item_ids", "item_vectors", "item_counts"):
        assert (getattr(loaded, name) == written[name]).all()
    assert all((loaded.weights[name] == written["weights"][name]).all() for name in written["weights"])
    assert (loaded.dim, loaded.interests, loaded.history_length, loaded.metric) == (D, K, L, "IP")
    assert loaded.encoder == ROUTING
    assert {key: loaded.manifest[key] for key in ("items", "users", "clicks", "config", "metrics")} == {
        "items": N,
        "users": 6,
        "clicks": 16,
        "config": {"training": {"seed": 1}},
        "metrics": {"recall@50": 0.25},
    }
    assert set(loaded.manifest["sha256"]) == set(FILES)


def test_the_item_vectors_are_mapped_read_only(saved: Artifact) -> None:
    assert isinstance(saved.item_vectors, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        saved.item_vectors[0, 0] = 1


def test_the_version_depends_only_on_the_content(saved: Artifact, tmp_path: Path) -> None:
    assert re.fullmatch(r"m[0-9a-f]{12}", saved.model_version)
    same = save_artifact(tmp_path / "b", **content() | {"config": {}, "metrics": {}})
    assert same.model_version == saved.model_version
    for changed in (content(1), content() | {"encoder": ROUTING | {"temperature": 0.3}}):
        assert save_artifact(tmp_path / "c", **changed).model_version != saved.model_version


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-7, 2, 3, 50, 2**62]) | st.integers(-8, 9)),
    st.sampled_from([content()["item_ids"].tolist(), [-7, -6, -5, -1, 2, 3, 7], [5]]),
)
def test_rows_finds_known_ids_and_marks_unknown_ones(ids: list[int], known: list[int]) -> None:
    items = np.array(known, np.int64)
    vectors, counts = np.empty((len(items), D), np.float32), np.empty(len(items), np.int64)
    artifact = Artifact(Path(), "m", D, K, L, "IP", {}, {}, items, vectors, counts, {})
    rows = artifact.rows(np.array(ids, np.int64))
    assert rows.dtype == np.int64
    assert rows.tolist() == [known.index(i) if i in known else -1 for i in ids]


@pytest.mark.parametrize("name", FILES)
def test_damage_is_detected_and_the_error_names_the_remedy(saved: Artifact, name: str) -> None:
    path = saved.path / name
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{name} does not match its checksum; copy it again, or train again"):
        Artifact.load(saved.path)
    path.write_bytes(intact[:40])
    with pytest.raises(ArtifactError, match="damaged"):
        Artifact.load(saved.path, verify=False)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} cannot be read"):
        Artifact.load(saved.path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("not json", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
        ({"format": 2}, "format 2, this version reads format 1; train again"),
        ({"dim": 8}, "was changed after training"),
        ({"encoder": {}}, "was changed after training"),
        ({"model_version": "m000000000000"}, "was changed after training"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(saved: Artifact, change: Any, complaint: str) -> None:
    text = change if isinstance(change, str) else json.dumps(saved.manifest | change)
    (saved.path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=complaint):
        Artifact.load(saved.path)


def test_files_of_two_artifacts_do_not_mix(saved: Artifact, tmp_path: Path) -> None:
    smaller = content() | {key: content()[key][1:] for key in ("item_ids", "item_vectors", "item_counts")}
    other = save_artifact(tmp_path / "other", **smaller)
    shutil.copy(other.path / "item_vectors.npy", saved.path)
    with pytest.raises(ArtifactError, match="do not fit together"):
        Artifact.load(saved.path, verify=False)


def test_the_error_for_a_missing_artifact_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no artifact here.*python -m model\.train"):
        Artifact.load(tmp_path / "none")


def test_saving_replaces_an_artifact_and_leaves_nothing_else(saved: Artifact, tmp_path: Path) -> None:
    newer = save_artifact(saved.path, **content(1))
    assert Artifact.load(saved.path).model_version == newer.model_version != saved.model_version
    assert (saved.item_vectors == content()["item_vectors"]).all()  # a reader of the old artifact keeps its memory map
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_artifacts_and_empty_folders_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important", encoding="utf-8")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ArtifactError, match="is not an artifact"):
            check_target(path)
        with pytest.raises(ArtifactError, match="is not an artifact"):
            save_artifact(path, **content())
    (tmp_path / "empty").mkdir()
    save_artifact(tmp_path / "empty", **content())
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "important"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"item_vectors": np.full((N, D), np.nan, np.float32)}, "diverged"),
        ({"item_vectors": np.zeros((N, D))}, "do not fit together"),
        ({"item_vectors": np.zeros((N - 1, D), np.float32)}, "do not fit together"),
        ({"item_ids": np.array([1, 3, 2, 4, 5])}, "do not fit together"),
        ({"item_ids": np.array([-1, 0, 2, 4, 5])}, "do not fit together"),
        ({"item_ids": np.array([1, 1, 2, 4, 5])}, "do not fit together"),
    ],
)
def test_nothing_unusable_is_written(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        save_artifact(tmp_path / "a", **content() | change)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_keeps_the_old_artifact(
    saved: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        save_artifact(saved.path, **content(1))
    assert Artifact.load(saved.path).model_version == saved.model_version
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("moment", [1, 2])
def test_ctrl_c_while_replacing_keeps_the_old_artifact(
    saved: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    calls = []
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == moment:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_artifact(saved.path, **content(1))
    assert Artifact.load(saved.path).model_version == saved.model_version
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_weights_and_descriptions_of_another_encoder_are_refused(tmp_path: Path) -> None:
    other_kind = save_artifact(tmp_path / "a", **content() | {"encoder": {"layers": 2}})
    with pytest.raises(ArtifactError, match=r"this version knows iterations, .*train the model again"):
        Encoder.from_artifact(other_kind)
    weights = content()["weights"]
    partial = save_artifact(tmp_path / "b", **content() | {"weights": {"bias": weights["bias"]}})
    with pytest.raises(ArtifactError, match=r"'bilinear'.* are missing"):
        Encoder.from_artifact(partial)
    misshapen = save_artifact(tmp_path / "c", **content() | {"weights": weights | {"recency": np.zeros(9, np.float32)}})
    with pytest.raises(ArtifactError, match="do not fit together"):
        Encoder.from_artifact(misshapen)
    wrong = save_artifact(tmp_path / "d", **content() | {"interests": 3})
    with pytest.raises(ArtifactError, match="disagree on the dimensions"):
        Encoder.from_artifact(wrong)


def test_the_encoder_of_an_artifact_has_its_dimensions(saved: Artifact) -> None:
    encoder = Encoder.from_artifact(saved)
    assert (encoder.dim, encoder.interests, encoder.history_length) == (D, K, L)
