"""Time to encode a batch of histories as interest vectors, on one thread, with nothing else in the process.

    lookup        item ids → embeddings in the memory-mapped matrix of the model
    model input   selection of the clicks that the encoder reads, padding
    encoding      MIND's dynamic routing in NumPy
    all           everything that the worker does for a batch before the search: these three, and combining them

It runs in a process of its own: the number of threads of NumPy's linear algebra is fixed when NumPy is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import random_artifact
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import Figure
from benchmarks.harness.servers import BenchmarkServers
from embedded.instance import CHECKOUT
from model.artifact import Artifact
from model.serving.encoder import Encoder
from model.serving.inputs import model_input
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.engine import RecallEngine
from streams.recall.memory import MemoryIndex

#: Variables of the libraries that NumPy may be built with: OpenBLAS, MKL, Accelerate, OpenMP.
_ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS"), "1"
)


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    folder = servers.folder / "encoder"
    random_artifact(folder, sizes["catalogue"], sizes["dim"], sizes["length"])
    servers.report(f"Encoding {sizes['rounds']:,} batches of {sizes['users']} users")
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "benchmarks.encoder", str(folder), json.dumps(dict(sizes))],
        cwd=CHECKOUT,
        env=os.environ | _ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the measuring process ended with status {done.returncode}\n{done.stderr}")
    medians = cast("dict[str, float]", json.loads(done.stdout))
    return [Figure(f"{name}, median of a batch", seconds * 1e6, "µs") for name, seconds in medians.items()]


def measure(artifact: Artifact, sizes: Sizes) -> dict[str, float]:
    """Return step → median seconds for a batch of B users with full histories; every round has other histories."""
    rng = np.random.default_rng(0)
    B, L = sizes["users"], sizes["length"]
    encoder = Encoder.from_artifact(artifact)
    index = MemoryIndex(artifact.model_version, artifact.dim)
    embeddings = HistoryEmbeddings(artifact, index, capacity=1, refresh_s=60.0, unknown_ttl_s=60.0)
    engine = RecallEngine(encoder, embeddings, index, top_k=50)
    taken: dict[str, list[float]] = {"lookup": [], "model input": [], "encoding": [], "all": []}
    rows, lengths = list(np.arange(1, B * L + 1).reshape(B, L)), np.full(B, L, dtype=np.int64)  # B × (L,), (B,)
    for _ in range(sizes["rounds"]):
        # Each round looks up other items, because rows that were just read would be in the processor's cache.
        histories, flat = list(rng.choice(artifact.item_ids, size=(B, L))), rng.choice(artifact.item_ids, size=B * L)
        taken["all"].append(_seconds(engine.interests, histories))
        taken["lookup"].append(_seconds(embeddings.lookup, flat))
        taken["model input"].append(_seconds(model_input, rows, L))
        batch = embeddings.lookup(flat)[0].reshape(B, L, -1)
        taken["encoding"].append(_seconds(encoder.encode, batch, lengths))
    return {name: float(np.median(times)) for name, times in taken.items()}


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


_SIZES = {"users": 64, "length": 20, "dim": 64, "catalogue": 368_000, "rounds": 500}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=False, milvus=False)

if __name__ == "__main__":
    print(json.dumps(measure(Artifact.load(Path(sys.argv[1])), json.loads(sys.argv[2]))))
