"""Time and memory of an evaluation: encoding, exact search of the catalogue with seen items kept and filtered, and all
metrics with their bootstrap, for lists of 20 and 50 items.

The vectors are random: the quality figures have no meaning, time and memory do. The evaluation runs in a process of its
own, so that the peak memory is its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import random_artifact
from benchmarks.harness.isolated import run_isolated
from benchmarks.harness.report import Figure
from benchmarks.harness.servers import BenchmarkServers

#: Its memory includes the memory-mapped files of the artifact.
_PROGRAM = """
import json, sys, time
import numpy as np
from configs.cli import progress_bar
from model.artifact import Artifact
from model.data.clicks import Clicks, Holdout
from model.evaluation.measure import measure_artifact
artifact, sizes = Artifact.load(sys.argv[1]), json.loads(sys.argv[2])
rng, U, N = np.random.default_rng(0), sizes["users"], sizes["items"]
def clicks(n):
    return Clicks(np.arange(U), np.arange(U + 1) * n, rng.integers(1, N + 1, U * n))
users = Holdout(clicks(sizes["seen"]), clicks(5))
begin, cpu = time.perf_counter(), time.process_time()
with progress_bar(U, "users") as bar:
    measure_artifact(artifact, users, (20, 50), seed=0, report_progress=bar.advance)
found = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
"""


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    folder = servers.folder / "evaluation"
    random_artifact(folder, sizes["items"], sizes["dim"], sizes["length"])
    servers.report(f"Measuring {sizes['users']:,} users on {sizes['items']:,} items")
    found = run_isolated(_PROGRAM, str(folder), json.dumps(dict(sizes)), quiet=False)  # its progress bar is shown
    return [
        Figure("evaluation", sizes["users"] / found["seconds"], "users/s"),
        Figure("evaluation, all users", found["seconds"], "s"),
        Figure("evaluation, processor time of all cores", found["cpu"], "s"),
        Figure("evaluation, peak memory", found["peak"] / 1e6, "MB"),
    ]


_SIZES = {"users": 100_000, "items": 368_000, "dim": 64, "length": 20, "seen": 20}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=False, milvus=False)
