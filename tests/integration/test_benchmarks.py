"""The benchmarks run to their end and leave nothing behind. Their figures are not checked."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from confluent_kafka.admin import AdminClient

from benchmarks.harness.data import Shop
from embedded.instance import CHECKOUT
from model.serving.encoder import Encoder
from tests.site import environment, wait_for

pytestmark = pytest.mark.integration

SHOP = {"items": 50, "dim": 8, "users": 12, "clicks": 60, "batch": 4}
# Groups run at the same time, so each has a model of its own, and with it a collection.
OTHER, ANOTHER = SHOP | {"items": 60}, SHOP | {"items": 70}
SIZES = {
    "throughput": SHOP | {"faust": 50, "seconds": 1},
    "latency": OTHER | {"seconds": 1},
    "service": {"items": 60, "dim": 8, "users": 12, "clicks": 60, "most_clients": 1, "seconds": 1},
    "freshness": OTHER | {"published": 3},
    "pressure": OTHER | {"seconds": 1},
    "scaling": ANOTHER | {"values": 1},
    "recall": SHOP | {"queried": 10},
    "producers": {"items": 300, "dim": 8, "clicks": 500, "users": 50},
    "restore": {"users": 100, "items": 50, "partitions": 2},
    "evaluation": {"users": 100, "items": 300, "dim": 8, "length": 5, "seen": 3},
    "encoder": {"users": 4, "length": 5, "dim": 8, "catalogue": 100, "rounds": 5},
    "training": {
        "items": 300,
        "users": 50,
        "batch": 8,
        "large_batch": 16,
        "negatives": 8,
        "steps": 2,
        "dense_steps": 2,
    },
    "reader": {"clicks": 500, "users": 50, "items": 40, "malformed": 3},
}
#: Groups that run at the same time, because most of the time they wait for workers to start.
GROUPS = (
    ("throughput", "recall", "producers"),
    ("latency", "service", "freshness", "pressure", "restore", "evaluation", "encoder", "training", "reader"),
    ("scaling",),
)


def _command(folder: Path, *names: str) -> list[str]:
    sets = [f"{name}.{size}={n}" for name in names for size, n in SIZES[name].items()]
    options = [option for setting in sets for option in ("--set", setting)]
    return [sys.executable, "-m", "benchmarks", *names, "--milvus", "lite", "--dir", str(folder), *options]


def _leftovers(kafka: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return topics and files of benchmarks that still exist."""
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    files = [path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return [topic for topic in topics if topic.startswith("bench-")], files


@pytest.mark.timeout(600)
def test_every_benchmark_runs_and_reports(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(SIZES)
    with ThreadPoolExecutor(len(GROUPS)) as pool:
        list(pool.map(lambda group: _run(group, tmp_path / group[0], kafka, milvus_lite), GROUPS))
    wait_for(lambda: _leftovers(kafka, tmp_path) == ([], []), "the deletion of the topics")


def _run(names: Sequence[str], folder: Path, kafka: str, milvus: str) -> None:
    figures, curves = folder.with_suffix(".json"), folder.with_suffix(".png")
    command = [*_command(folder, *names), "--json", str(figures), "--plot", str(curves)]
    servers = environment(MINDSTREAM_KAFKA=kafka, MINDSTREAM_MILVUS=milvus)
    done = subprocess.run(command, cwd=CHECKOUT, env=servers, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    assert "commit " in done.stdout
    assert "command " in done.stdout
    report = json.loads(figures.read_text())
    assert [result["benchmark"] for result in report["results"]] == list(names)
    for result in report["results"]:
        assert result["sizes"] == SIZES[result["benchmark"]]
        assert result["figures"]
        for figure in result["figures"]:
            assert math.isfinite(figure["value"]), figure
            assert figure["value"] >= 0 or figure["unit"].startswith("MiB / million"), (
                figure
            )  # noise of small differences
            assert figure["name"] in done.stdout
    assert curves.stat().st_size
    figures.unlink()
    curves.unlink()


def test_the_baseline_encodes_as_the_worker_does(tmp_path: Path) -> None:
    from benchmarks.yardsticks.hand_wired import network
    from model.training.backend import paddle

    artifact = Shop(tmp_path / "shop", items=50, dim=8, users=5, clicks=5).artifact
    rng = np.random.default_rng(0)
    embeddings = np.asarray(artifact.item_vectors)[rng.integers(50, size=(3, artifact.history_length))]
    lengths = np.array([1, 7, artifact.history_length])
    expected = Encoder.from_artifact(artifact).encode(embeddings, lengths)
    found, _ = network(artifact).by_operators(paddle.to_tensor(embeddings), paddle.to_tensor(lengths))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    log, folder = tmp_path / "log", tmp_path / "bench"
    command = [*_command(folder, "freshness"), "--set", "freshness.published=100000"]
    servers = environment(MINDSTREAM_KAFKA=kafka, MINDSTREAM_MILVUS=milvus_lite)
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=servers, stdout=file, stderr=file)
    wait_for(lambda: "Publishing" in log.read_text() or process.poll() is not None, "the measurement to begin")
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers, log.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130, log.read_text()
    assert not any(worker.is_running() for worker in workers)
    wait_for(lambda: _leftovers(kafka, folder) == ([], []), "the deletion of the topics")


@pytest.mark.parametrize(
    ("names", "plot", "text"),
    [
        (("encoder", "reader"), "x.png", "these have: throughput, latency, service, pressure, scaling, recall"),
        (("encoder", "recall"), "x.txt", ".txt cannot be drawn"),
        (("recall",), "nowhere/x.png", "cannot be written"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, names: tuple[str, ...], plot: str, text: str
) -> None:
    command = [*_command(tmp_path / "bench", *names), "--plot", str(tmp_path / plot)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 2)
    assert text in " ".join(done.stderr.replace("\n", " ").split())
    assert not done.stdout


def test_an_unknown_size_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    command = [*_command(tmp_path, "encoder"), "--set", "encoder.user=3"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "known: encoder.users" in done.stderr
