"""How long it takes to measure a model on test users: encoding, exact search of the catalogue, seen items kept and
filtered, every metric with its bootstrap. Lists of 20 and 50; random vectors, so nothing but the quality is untrue.

It runs in a process of its own, whose peak memory is its alone.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import random_artifact
from benchmarks.report import ROOT, Figure
from benchmarks.stage import BenchmarkError, Stage
from model.artifact import Artifact
from model.data import Clicks, Holdout
from model.evaluation.measure import measure
from model.evaluation.report import progress_bar

TOP_N = (20, 50)


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure]:
    folder = stage.folder / "evaluation"
    random_artifact(folder, sizes["items"], sizes["dim"], sizes["length"])
    stage.report(f"Measuring {sizes['users']:,} users on {sizes['items']:,} items")
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "benchmarks.evaluation", str(folder), json.dumps(dict(sizes))],
        cwd=ROOT,
        stdout=subprocess.PIPE,  # its bar stays visible
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the measuring process ended with status {done.returncode}")
    found = cast("dict[str, float]", json.loads(done.stdout))
    return [
        Figure("evaluation", sizes["users"] / found["seconds"], "users/s"),
        Figure("evaluation, all users", found["seconds"], "s"),
        Figure("evaluation, processor time of all cores", found["cpu"], "s"),
        Figure("evaluation, peak memory", found["peak"] / 1e6, "MB"),
    ]


def timed(artifact: Artifact, sizes: Sizes) -> dict[str, float]:
    """Seconds, seconds of processor time, and bytes of memory at the most, the artifact's mapped files among them."""
    rng = np.random.default_rng(0)
    users = Holdout(*(_clicks(sizes["users"], count, sizes["items"], rng) for count in (sizes["seen"], 5)))
    begin, cpu = time.perf_counter(), time.process_time()
    with progress_bar(sizes["users"], "users") as show:
        measure(artifact, users, TOP_N, seed=0, report=show)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {"seconds": seconds, "cpu": cpu, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def _clicks(users: int, each: int, items: int, rng: np.random.Generator) -> Clicks:
    return Clicks(np.arange(users), np.arange(users + 1) * each, rng.integers(1, items + 1, users * each))


_SIZES = {"users": 100_000, "items": 368_000, "dim": 64, "length": 20, "seen": 20}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=False, milvus=False)

if __name__ == "__main__":
    print(json.dumps(timed(Artifact.load(Path(sys.argv[1])), json.loads(sys.argv[2]))))
