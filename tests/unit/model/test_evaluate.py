"""The evaluation command on models whose recommendations are known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from configs.errors import EXIT_CONFIG, EXIT_FAILURE, EXIT_TRANSIENT
from model.arrays import FloatArray, IdVector
from model.artifact import save_artifact
from model.data.clicks import read_clicks
from model.evaluate import main
from model.evaluation.measure import EvaluationError
from model.evaluation.runs import kept_epochs, parse_numbers, seconds_by_epoch
from model.serving.encoder import Routing

SAMPLE = Path(os.environ.get("MINDSTREAM_DATA", "../shared/data")) / "amazonbook-sample"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason=f"no AmazonBook sample in {SAMPLE}; set MINDSTREAM_DATA to the folder that holds it"
)

#: Items 10, 20, 30 are near one axis, and 40, 50, 60 near another: who clicked one of three is recommended these three.
IDS = np.arange(10, 70, 10)
D = 4


def axes(*, shuffled: bool = False) -> FloatArray:
    """Return vectors of items 10, 20, 30 near one axis, and 40, 50, 60 near another; `shuffled` swaps 10 and 40."""
    vectors = np.zeros((6, D), np.float32)
    vectors[:3, 0], vectors[3:, 1] = [1.0, 0.9, 0.8], [1.0, 0.9, 0.8]
    vectors[:3, 2], vectors[3:, 3] = [0.0, 0.3, 0.5], [0.0, 0.3, 0.5]
    if shuffled:
        vectors[[0, 3]] = vectors[[3, 0]]
    return vectors


def artifact(folder: Path, ids: IdVector = IDS, vectors: FloatArray | None = None) -> Path:
    """Write a model of these items, by default those of `axes`."""
    weights = {"bilinear": np.eye(D), "output": np.eye(D), "bias": np.zeros(D)}
    weights |= {"start": np.zeros((2, 5)), "recency": np.zeros(5)}
    save_artifact(
        folder,
        weights={name: value.astype(np.float32) for name, value in weights.items()},
        interests=2,
        history_length=5,
        encoder=Routing(3, 1.0, "interests", normalise=True, relu=False, residual=0.0, by_history=False).to_dict(),
        item_ids=ids,
        item_vectors=axes() if vectors is None else vectors,
        item_counts=np.ones(len(ids), np.int64),
        users=1,
        clicks=6,
        config={},
    )
    return folder


@needs_sample
@pytest.mark.parametrize("file", ["train/demo.txt", "valid/part-0"])
def test_genuine_amazonbook_files_are_measured(tmp_path: Path, file: str) -> None:
    """The model knows only the popular items of the train file, so not all items of the test users."""
    clicks = read_clicks([SAMPLE / "train" / "demo.txt"])
    ids, counts = np.unique(clicks.items, return_counts=True)
    popular = np.sort(ids[np.argsort(-counts, kind="stable")[:500]])
    rng = np.random.default_rng(0)
    model = artifact(tmp_path / "model", popular, rng.standard_normal((len(popular), D)).astype(np.float32))
    found = measured("--artifact", model, "--test", SAMPLE / file)["models"][0]
    assert found["users"] == {"train/demo.txt": 1467, "valid/part-0": 499}[file]
    assert 0 < found["without_history"] < found["users"]
    recalls = {(one["seen"], one["n"]): one["figures"]["recall"]["mean"] for one in found["lists"]}
    assert 0 < recalls["kept", 20] <= recalls["kept", 50] < 0.2
    assert 0 < recalls["filtered", 20] <= recalls["filtered", 50] < 0.2


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def measured(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def lists(model: dict[str, Any], seen: str, n: int) -> dict[str, Any]:
    found = [one for one in model["lists"] if (one["search"], one["seen"], one["n"]) == ("exact", seen, n)]
    assert len(found) == 1
    return dict(found[0])


def mean(model: dict[str, Any], seen: str, n: int, figure: str) -> float:
    return float(lists(model, seen, n)["figures"][figure]["mean"])


@pytest.fixture
def valid_format(tmp_path: Path) -> Path:
    """User 1 clicked 10, user 2 clicked 40 and 99, which is unknown, and user 3 only 99."""
    path = tmp_path / "test.txt"
    path.write_text(
        "user_id:1 target_item:0 hist_item:10 eval_item:20 eval_item:60\n"
        "user_id:2 target_item:0 hist_item:40 hist_item:99 eval_item:50\n"
        "user_id:3 target_item:0 hist_item:99 eval_item:10\n"
    )
    return path


def test_figures_of_the_valid_format_equal_those_computed_by_hand(tmp_path: Path, valid_format: Path) -> None:
    document = measured("--artifact", artifact(tmp_path / "model"), "--test", valid_format, "--top-n", "1,2")
    (model,) = document["models"]
    assert document["top_n"] == [1, 2] and document["tests"] == [str(valid_format)]
    assert (model["users"], model["items"], model["without_history"]) == (3, 6, 1)
    # Lists: kept 10, 20 and 40, 50 and none; unseen 20, 30 and 50, 60 and none. Targets: 20, 60 and 50 and 10.
    assert mean(model, "kept", 1, "recall") == 0
    assert mean(model, "kept", 2, "recall") == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert mean(model, "filtered", 1, "recall") == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert mean(model, "filtered", 1, "ndcg") == pytest.approx(2 / 3)
    assert mean(model, "kept", 2, "hit_rate") == pytest.approx(2 / 3)
    second = 1 / np.log2(3)
    assert mean(model, "kept", 2, "ndcg") == pytest.approx((second / (1 + second) + second) / 3)
    assert mean(model, "kept", 2, "ndcg_over_hits") == pytest.approx(2 * second / 3)
    assert lists(model, "kept", 1)["coverage"] == pytest.approx(2 / 6)
    assert lists(model, "kept", 2)["coverage"] == pytest.approx(4 / 6)
    cosine = 0.9 / np.hypot(0.9, 0.3)  # between 10 and 20, and between 40 and 50
    assert mean(model, "kept", 2, "diversity") == pytest.approx(1 - cosine, abs=1e-6)
    assert lists(model, "kept", 2)["figures"]["diversity"]["low"] == pytest.approx(1 - cosine, abs=1e-6)
    assert lists(model, "kept", 1)["figures"]["diversity"]["mean"] is None  # needs two items
    assert sum(lists(model, "kept", 2)["interest_shares"]) == pytest.approx(1)
    assert model["cosine"]["mean"] == pytest.approx(1)  # both interests equal the single click
    assert model["recall_at"]["exact"]["kept"] == pytest.approx([0, 0.5])
    recall = lists(model, "kept", 2)["figures"]["recall"]
    assert 0 <= recall["low"] < recall["mean"] < recall["high"] <= 1


def test_figures_do_not_depend_on_blocks_of_users(
    tmp_path: Path, valid_format: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--artifact", artifact(tmp_path / "model"), "--test", valid_format, "--top-n", "1,3")
    whole = measured(*options)
    for size in (1, 2):
        monkeypatch.setattr("model.evaluation.measure.BLOCK_USERS", size)
        assert measured(*options) == whole


def test_the_train_format_is_split_by_the_protocol(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    # 80 % of five clicks are history, in the order of the third column: 30 is the target, 10, 40, 20 and 60 are seen.
    path.write_text("7,30,5\n7,10,1\n7,40,2\n7,20,3\n7,60,4\n8,10,1\n")
    (model,) = measured("--artifact", artifact(tmp_path / "model"), "--test", path, "--top-n", "2")["models"]
    assert model["users"] == 1
    assert mean(model, "filtered", 2, "recall") == 1  # 30 and 50 are left
    assert mean(model, "kept", 2, "recall") == 0


def test_the_configuration_names_artifact_and_test_files(tmp_path: Path, valid_format: Path) -> None:
    artifact(tmp_path / "model")
    config = tmp_path / "mind.yaml"
    config.write_text(f"output: {{folder: {tmp_path / 'model'}}}\ndata: {{valid_paths: [{valid_format}]}}\n")
    result = run("-c", config)
    assert result.exit_code == 0, result.output
    assert f"3 test users from {valid_format}" in result.stderr
    for expected in ("recall", "NDCG over hits", "coverage", "@20 unseen", "1 of 3 users", "50.00"):
        assert expected in result.stdout


@pytest.fixture
def training_run(tmp_path: Path, valid_format: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "epochs").mkdir(parents=True)
    for epoch, shuffled in ((4, False), (5, True), (6, False)):
        artifact(folder / "epochs" / f"{epoch:04}", vectors=axes(shuffled=shuffled))
    (folder / "config.yaml").write_text(f"data: {{valid_paths: [{valid_format}]}}\n")
    entries = [{"epoch": e, "step": 10 * e + s, "seconds": e + s / 10, "loss": 1.0} for e in (4, 5, 6) for s in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"epoch": 7, "st')
    return folder


def test_epochs_of_a_run_are_measured_and_plotted(tmp_path: Path, training_run: Path) -> None:
    plot = tmp_path / "plots" / "recall.png"
    models = measured("--run", training_run, "--epochs", "4-5", "--top-n", "2", "--plot", plot)["models"]
    assert [(model["epoch"], model["seconds"]) for model in models] == [(4, 4.2), (5, 5.2)]
    assert [mean(model, "kept", 2, "recall") for model in models] == pytest.approx([0.5, 0])
    assert plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size > 10_000
    table = run("--run", training_run, "--top-n", "2")
    assert (
        "3 epochs" in table.stdout and "epoch 4, model" in table.stdout
    )  # of two equally good epochs, the first has the full table


def test_errors_name_the_remedy(tmp_path: Path, training_run: Path, valid_format: Path) -> None:
    model = artifact(tmp_path / "model")
    both, empty, single = (tmp_path / name for name in ("both.csv", "empty.csv", "single.csv"))
    both.write_text("1,10,1\n1,20,2\n")
    empty.write_text("")
    single.write_text("1,10,1\n")
    for arguments, expected in (
        (["--artifact", model], "--test FILE"),
        (["--artifact", tmp_path / "none", "--test", both], "no artifact here"),
        (["--artifact", model, "--test", tmp_path / "none"], "cannot be read"),
        (["--artifact", model, "--test", both, "--test", valid_format], "both formats"),
        (["--artifact", model, "--test", empty], "no users to evaluate on"),
        (["--artifact", model, "--test", single], "at least two clicks"),
        (["--artifact", model, "--test", both, "--top-n", "0"], "whole numbers from 1"),
        (["--artifact", model, "--epochs", "1"], "--run DIR"),
        (["--artifact", model, "--run", training_run], "exclude"),
        (["--run", training_run, "--epochs", "1,3-5"], "no epoch 1, 3; kept are 4–6"),
        (["--run", tmp_path], "no epochs here"),
        (["--artifact", model, "--test", both, "--plot", tmp_path / "recall.txt"], "its name ends in .png"),
        (["--artifact", model, "--test", both, "--milvus", "http://127.0.0.1:1"], "milvus.uri"),
        (["--artifact", model, "--test", both, "--milvus", "nowhere"], "milvus.uri"),
    ):
        result = run(*arguments)
        assert result.exit_code in (EXIT_FAILURE, 2, EXIT_TRANSIENT, EXIT_CONFIG), arguments
        assert expected in result.stderr, (arguments, result.stderr)


def test_numbers_and_ranges_are_parsed() -> None:
    assert parse_numbers("5-8") == [5, 6, 7, 8]
    assert parse_numbers("50, 20,20-21") == [20, 21, 50]
    for text in ("", "0", "8-5", "a", "5-", "1,,2", "-3", "²"):
        with pytest.raises(ValueError, match="whole numbers"):
            parse_numbers(text)


def test_the_folder_of_a_run_is_read(tmp_path: Path, training_run: Path) -> None:
    assert seconds_by_epoch(training_run) == {4: 4.2, 5: 5.2, 6: 6.2}
    assert [epoch for epoch, _ in kept_epochs(training_run, [6, 4])] == [4, 6]
    assert seconds_by_epoch(tmp_path) == {}
    (training_run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(EvaluationError, match="line 1: expected epoch and seconds"):
        seconds_by_epoch(training_run)
