"""Speed and memory of reading a click file of AmazonBook's size into training arrays.

    plain, .gz, .xz       numbers as user ids
    text user ids         plain
    malformed lines       plain; spread over the file, skipped and counted

Each file is read in a process of its own, which imports only the reader. The time includes decompression; memory is the
peak of the whole process, Python and NumPy included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.isolated import run_isolated
from benchmarks.harness.report import Figure
from benchmarks.harness.servers import BenchmarkServers
from producers.generate import write_clicks
from producers.synthetic import Shape, SyntheticClicks, generate

_PROGRAM = """
import sys, time
from model.data.clicks import read_clicks
from model.data.malformed import MalformedLines
begin = time.perf_counter()
malformed = MalformedLines("skip")
clicks = read_clicks(sys.argv[1:], malformed)
found = {"seconds": time.perf_counter() - begin, "clicks": len(clicks.items), "malformed": malformed.total}
"""


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    C, U, N = sizes["clicks"], sizes["users"], sizes["items"]
    tastes = min(20, N)
    folder = servers.folder / "reader"
    folder.mkdir(parents=True)
    servers.report(f"Generating {C:,} clicks of {U:,} users")
    generated = generate(Shape(U, N, C, tastes=tastes, tastes_per_user=min(3, tastes), drift=0.0))
    figures: list[Figure] = []
    for what, name, clicks, malformed in _variants(generated, min(sizes["malformed"], C)):
        path = folder / name
        servers.report(f"Writing and reading {name}: {what}")
        write_clicks(clicks, str(path))
        figures += _measure(what, path, C, malformed)
        path.unlink()
    return figures


def _variants(generated: SyntheticClicks, malformed: int) -> Iterator[tuple[str, str, SyntheticClicks, int]]:
    """Yield description, file name, clicks, and the number of malformed lines among them."""
    yield "plain", "clicks.csv", generated, 0
    yield ".gz", "clicks.csv.gz", generated, 0
    yield ".xz", "clicks.csv.xz", generated, 0
    names = np.array([f"A{user:013}" for user in range(len(generated.drifts))])  # as long as Amazon's ids
    yield "text user ids", "text.csv", replace(generated, user=names[generated.user]), 0
    item = generated.item.copy()
    item[np.linspace(0, len(item) - 1, malformed, dtype=np.int64)] = 0  # id 0 is padding
    yield f"{malformed:,} malformed lines", "malformed.csv", replace(generated, item=item), malformed


def _measure(what: str, path: Path, lines: int, malformed: int) -> list[Figure]:
    result = run_isolated(_PROGRAM, str(path))
    if (result["clicks"], result["malformed"]) != (lines - malformed, malformed):
        raise BenchmarkError(
            f"{path.name} has {lines} lines, {malformed} of them malformed; the reader returned {result}"
        )
    seconds = cast("float", result["seconds"])
    return [
        Figure(f"{what}, reading", seconds, "s"),
        Figure(f"{what}, rate", lines / seconds, "lines/s"),
        Figure(f"{what}, peak memory", result["peak"] / 1e6, "MB"),
    ]


_SIZES = {"clicks": 8_900_000, "users": 600_000, "items": 368_000, "malformed": 1_000}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=False, milvus=False)
