"""Recall of Milvus' approximate search relative to exact search, and its speed, by ef.

Queries are interest vectors of generated users' histories, searched in batches as the worker does. Recall@50 is the
share of the 50 items with the largest inner products that a result of 50 contains. The worker asks for more items,
because it removes those that the user has seen: for `recall.top_k` plus the length of a history, 70 as shipped. "As the
worker asks" is a result of that length, compared completely. HNSW examines at least as many candidates as it is asked
for, so a smaller `milvus.hnsw_ef` changes nothing for the worker.

An index of vectors compressed to one byte per number (IVF_SQ8) is measured beside it, by the number of lists that a
search reads. HNSW over such vectors needs a newer Milvus than the embedded one. Item vectors lie around the centres of
tastes, like those of a trained model (`benchmarks.harness.data.Shop`); vectors without structure are harder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import Shop
from benchmarks.harness.report import Curve, Figure
from benchmarks.harness.searches import interests, open_index
from benchmarks.harness.servers import BenchmarkServers
from configs.loader import load_worker
from model.arrays import FloatMatrix, IntVector
from model.evaluation.search import exact_top
from streams.milvus.index import MilvusIndex

#: Candidates that HNSW examines, `milvus.hnsw_ef`.
_EFS = (50, 70, 100, 200)
#: Lists of IVF_SQ8: about four times the square root of 368,000, as Milvus' documentation advises.
_LISTS = 2048
#: Lists that a search reads.
_PROBES = (8, 16, 32, 64)


class CompressedIndex(MilvusIndex):
    """IVF_SQ8 instead of HNSW; `milvus.hnsw_ef` is the number of lists that a search reads."""

    def _index_params(self) -> tuple[str, dict[str, int]]:
        return "IVF_SQ8", {"nlist": _LISTS}

    def _search_params(self, limit: int) -> dict[str, int]:  # noqa: ARG002 - it reads whole lists
        return {"nprobe": self._settings.hnsw_ef}


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.from_sizes(servers.folder / "recall", sizes)
    config = load_worker()
    top, asked = config.recall.top_k, config.recall.top_k + config.history.length
    queries = interests(shop, shop.rounds(), sizes["queried"]).reshape(-1, shop.artifact.dim)  # (Q, D)
    servers.report(f"Searching exactly for {len(queries):,} queries")
    vectors, most = np.asarray(shop.artifact.item_vectors), min(asked, sizes["items"])
    exact = shop.artifact.item_ids[exact_top(queries[:, None], vectors, most, fusion=0)]  # (Q, most)
    found: list[Figure | Curve] = []
    for kind, parameter, values in ((MilvusIndex, "ef", _EFS), (CompressedIndex, "IVF_SQ8, lists", _PROBES)):
        with servers.index(shop.artifact, kind):
            for limit, how in ((top, ""), (asked, ", as the worker asks")):
                used = [n for n in values if n >= limit or kind is CompressedIndex]
                points = []
                for n in used:
                    servers.report(f"Searching for {limit} items with {parameter} {n}")
                    with open_index(servers, shop, f"milvus.hnsw_ef={n}", kind=kind) as milvus:
                        points.append(_search(milvus, queries, exact[:, :limit], limit, sizes["batch"]))
                found += _report(parameter, how, limit, used, points)
    return found


def _search(milvus: MilvusIndex, queries: FloatMatrix, exact: IntVector, limit: int, batch: int) -> tuple[float, float]:
    """Return the percentage of `exact`, (Q, n) ids, that results of `limit` items contain, and queries/s."""
    step = 4 * batch
    milvus.search(queries[:step], limit)  # warm-up
    begin = time.monotonic()
    found = [ids for at in range(0, len(queries), step) for ids in milvus.search(queries[at : at + step], limit)[0]]
    rate = len(queries) / (time.monotonic() - begin)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return 100 * hits / exact.size, rate


def _report(
    parameter: str, how: str, limit: int, used: Sequence[int], points: Sequence[tuple[float, float]]
) -> list[Figure | Curve]:
    recalls, rates = [recall for recall, _ in points], [rate for _, rate in points]
    return [
        *(Figure(f"recall@{limit} at {parameter} {n}{how}", r, "%") for n, r in zip(used, recalls, strict=True)),
        *(Figure(f"speed at {parameter} {n}{how}", r, "queries/s") for n, r in zip(used, rates, strict=True)),
        Curve(f"by {parameter}{how}", f"recall@{limit}, %", "queries/s", recalls, rates),
    ]


_SHARED = {"dim": 64}
BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"items": 367_983, "users": 200_000, "clicks": 200_000, "queried": 2_560, "batch": 256} | _SHARED,
        # In milvus-lite, ef changes nothing.
        "lite": {"items": 2_000, "users": 200, "clicks": 200, "queried": 50, "batch": 4} | _SHARED,
    },
    kafka=False,
    milvus=True,
    curves=True,
)
