"""A model measured with a real Milvus: it agrees with the exact search, and leaves no collection."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.harness.data import random_artifact
from configs.loader import load_worker
from model.artifact import Artifact
from model.evaluate import main
from model.evaluation.measure import EvaluationError
from streams.milvus.client import connect
from streams.tools import served_index

pytestmark = pytest.mark.integration

BACKENDS = ["lite", pytest.param("standalone", marks=pytest.mark.standalone)]


@pytest.fixture(params=BACKENDS)
def uri(request: pytest.FixtureRequest) -> str:
    address: str = request.getfixturevalue(f"milvus_{request.param}")
    return address


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return random_artifact(tmp_path / "model", items=500, dim=16)


def collections(uri: str) -> list[str]:
    client = connect(load_worker(None, [f"milvus.uri={uri}"], {}).milvus)
    try:
        return sorted(client.list_collections())
    finally:
        client.close()


def test_milvus_agrees_with_the_exact_search_and_keeps_no_collection(
    tmp_path: Path, uri: str, artifact: Artifact
) -> None:
    rng = np.random.default_rng(0)
    clicks = [f"{user},{item},{n}" for user in range(30) for n, item in enumerate(rng.integers(1, 501, user + 2))]
    test = tmp_path / "test.csv"
    test.write_text("\n".join([*clicks, "99,900,1", "99,901,2"]))  # a user who clicked only unknown items
    before = collections(uri)
    options = ["--artifact", str(artifact.path), "--test", str(test), "--top-n", "5,20", "--milvus", uri, "--json"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    (model,) = json.loads(result.stdout)["models"]
    found = {(one["search"], one["seen"], one["n"]): one for one in model["lists"]}
    assert model["without_history"] == 1
    for seen in ("kept", "filtered"):
        for n in (5, 20):
            milvus, exact = found["milvus", seen, n], found["exact", seen, n]
            agreement = milvus["figures"]["agreement"]["mean"]
            assert 0.95 <= agreement <= 1
            if agreement == 1:
                for figure in ("recall", "ndcg", "hit_rate", "clusters", "diversity"):
                    assert milvus["figures"][figure]["mean"] == pytest.approx(exact["figures"][figure]["mean"])
                assert milvus["interest_shares"] == pytest.approx(exact["interest_shares"], abs=0.01)
    assert collections(uri) == before


def test_the_collection_is_dropped_after_a_failure(
    uri: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = collections(uri)
    config = load_worker(None, [f"milvus.uri={uri}", "milvus.timeout=60"], {})
    with suppress(KeyboardInterrupt), served_index.temporary_index(artifact, config):
        assert len(collections(uri)) == len(before) + 1
        raise KeyboardInterrupt
    assert collections(uri) == before
    monkeypatch.setattr(served_index, "TIMEOUT_S", 0.0)
    monkeypatch.setattr("streams.milvus.index.MilvusIndex.upsert", lambda *_: None)
    with (
        pytest.raises(EvaluationError, match="does not show more than 0 of 500 items"),
        served_index.temporary_index(artifact, config),
    ):
        pass
    assert collections(uri) == before
