"""The benchmarks run to their end, and leave nothing behind; what they measure is not judged here."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from tests.site import ROOT, environment, wait_for

pytestmark = pytest.mark.integration

SIZES = {
    "freshness": {"items": 3, "catalogue": 50, "dim": 8},
    "clicks": {"clicks": 60, "users": 12, "catalogue": 50, "dim": 8, "batch": 4, "rate": 10, "seconds": 1},
    "producers": {"items": 300, "dim": 8, "clicks": 500, "users": 50},
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


def _command(folder: Path, *names: str) -> list[str]:
    sets = [f"{name}.{size}={n}" for name in names for size, n in SIZES[name].items()]
    options = [option for setting in sets for option in ("--set", setting)]
    return [sys.executable, "-m", "benchmarks", *names, "--milvus", "lite", "--dir", str(folder), *options]


def _left(kafka: str, folder: Path) -> tuple[list[str], list[str]]:
    """Topics and files of benchmarks that still exist."""
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    files = [path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return [topic for topic in topics if topic.startswith("bench-")], files


def test_every_benchmark_runs_and_reports(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    figures = tmp_path / "figures.json"
    command = [*_command(tmp_path / "bench", *SIZES), "--json", str(figures)]
    servers = environment(MINDSTREAM_KAFKA=kafka, MINDSTREAM_MILVUS=milvus_lite)
    done = subprocess.run(command, cwd=ROOT, env=servers, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "commit " in done.stdout
    assert "command " in done.stdout
    report = json.loads(figures.read_text())
    assert [result["benchmark"] for result in report["results"]] == list(SIZES)
    for result in report["results"]:
        assert result["sizes"] == SIZES[result["benchmark"]]
        assert result["figures"]
        for figure in result["figures"]:
            assert math.isfinite(figure["value"]) and figure["value"] >= 0, figure
            assert figure["name"] in done.stdout
    wait_for(lambda: _left(kafka, tmp_path / "bench") == ([], []), "the topics to go")


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    log, folder = tmp_path / "log", tmp_path / "bench"
    command = [*_command(folder, "freshness"), "--set", "freshness.items=100000"]
    servers = environment(MINDSTREAM_KAFKA=kafka, MINDSTREAM_MILVUS=milvus_lite)
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=servers, stdout=file, stderr=file)
    wait_for(lambda: "Publishing" in log.read_text() or process.poll() is not None, "the measurement to begin")
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers, log.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130, log.read_text()
    assert not any(worker.is_running() for worker in workers)
    wait_for(lambda: _left(kafka, folder) == ([], []), "the topics to go")


def test_wrong_sizes_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    command = [*_command(tmp_path, "encoder"), "--set", "encoder.user=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "known: encoder.users" in done.stderr
