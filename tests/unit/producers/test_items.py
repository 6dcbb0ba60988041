"""Publishing and removing items against librdkafka's mock cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from configs.errors import EXIT_CONFIG
from producers import items
from streams.messages.items import Item, ItemRemoval, decode_item
from tests.unit.producers.mock_kafka import MockKafka, run


def test_the_items_of_an_artifact_are_published(kafka: MockKafka, artifact: Path) -> None:
    result = run(items.main, "--artifact", artifact, "--limit", "200")
    assert result.exit_code == 0, result.output
    assert "sent=200 delivered=200 failed=0" in result.output
    source = items._load_artifact(artifact)
    read = [decode_item(key, value) for _, key, value in kafka.read("items", 200)]
    assert sorted(item.item_id for item in read) == list(range(1, 201))
    for item in read:
        assert isinstance(item, Item)
        assert item.model_version == source.model_version
        np.testing.assert_array_equal(item.embedding, source.item_vectors[item.item_id - 1])


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_one_item_is_published_and_removed(kafka: MockKafka, artifact: Path, tmp_path: Path, suffix: str) -> None:
    vector = np.arange(8, dtype=np.float32)
    path = tmp_path / f"new{suffix}"
    if suffix == ".npy":
        np.save(path, vector)
    else:
        path.write_bytes(orjson.dumps(vector.tolist()))
    result = run(items.main, "--artifact", artifact, "--id", "900", "--embedding-file", path, "--title", "Ünïcode")
    assert result.exit_code == 0, result.output
    assert run(items.main, "--delete", "--id", "900", "--id", "901").exit_code == 0
    read = [decode_item(key, value) for _, key, value in kafka.read("items", 3)]
    assert [item.title for item in read if isinstance(item, Item)] == ["Ünïcode"]
    assert {item.item_id for item in read if isinstance(item, ItemRemoval)} == {900, 901}


def test_items_that_the_worker_would_refuse_are_not_sent(artifact: Path, tmp_path: Path) -> None:
    cases = {
        "[1, 2]": "2 numbers",
        "[0,0,0,0,0,0,0,0]": "all zero",
        "[1e99,1,1,1,1,1,1,1]": "numbers",
        "{": "not a vec",
    }
    for text, fault in cases.items():
        path = tmp_path / "bad.json"
        path.write_text(text)
        result = run(items.main, "--artifact", artifact, "--id", "9", "--embedding-file", path)
        assert result.exit_code == 1
        assert fault in result.output
    zero = run(items.main, "--delete", "--id", "0")
    assert zero.exit_code == 1
    assert "padding" in zero.output


def test_a_vector_of_another_norm_is_refused_or_divided(kafka: MockKafka, unit_artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.npy"
    np.save(path, np.full(8, 100, np.float32))
    one = ("--artifact", unit_artifact, "--id", "900", "--embedding-file", path)
    refused = run(items.main, *one)
    assert refused.exit_code == 1
    for part in ("item 900", "norm 282.8", "--normalise"):
        assert part in refused.output
    assert run(items.main, *one, "--normalise").exit_code == 0

    everything = ("--artifact", unit_artifact, "--limit", "10")
    refused = run(items.main, *everything)
    assert refused.exit_code == 1
    assert "item 7 has norm 3" in refused.output
    assert run(items.main, *everything, "--normalise").exit_code == 0
    read = [decode_item(key, value) for _, key, value in kafka.read("items", 11)]
    assert len(read) == 11, "what was refused was not sent in part"
    assert all(isinstance(item, Item) and np.linalg.norm(item.embedding) == pytest.approx(1) for item in read)


def test_a_model_with_free_norms_refuses_only_far_longer_vectors(artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.npy"
    np.save(path, np.full(8, 1e38, np.float32))
    one = ("--artifact", artifact, "--id", "900", "--embedding-file", path)
    refused = run(items.main, *one)
    assert refused.exit_code == 1
    assert "more than 10 times the longest" in refused.output
    assert "does not normalise" in run(items.main, *one, "--normalise").output


def test_usage_errors_name_the_missing_option(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINDSTREAM_ARTIFACT", raising=False)
    for arguments, hint in (
        ((), "--artifact"),
        (("--delete",), "--id"),
        (("--artifact", artifact, "--id", "3"), "--embedding-file"),
        (("--artifact", artifact, "--title", "x"), "--id"),
        (("--delete", "--id", "3", "--title", "x"), "takes only --id"),
    ):
        result = run(items.main, *arguments)
        assert result.exit_code == 2
        assert hint in result.output
    missing = run(items.main, "--artifact", artifact / "no")
    assert missing.exit_code == EXIT_CONFIG
    assert "python -m model.train" in missing.output
