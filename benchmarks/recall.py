"""What the approximate search of Milvus finds of what an exact one finds, for the same queries, and how fast, by ef.

Queries are interest vectors of generated users' histories, searched in batches as the worker does. Recall@50 is the
share of the 50 items with the largest inner products that an answer of 50 holds. The worker asks for more, because it
leaves out what the user has seen: for `recall.top_k` items and as many as the history holds, 70 as shipped. "As the
worker asks" is an answer of that length, all of it compared. HNSW looks at as many candidates as it is asked for at
least, so a smaller `milvus.hnsw_ef` changes nothing for the worker.

Beside it stands an index of vectors compressed to a byte a number (IVF_SQ8), by how many of its lists a search reads.
HNSW over such vectors needs a newer Milvus than the embedded one. Item vectors lie around the centres of tastes, as
those of a trained model do (`benchmarks.harness.data.Shop`); vectors without any structure are harder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.data import FloatMatrix, IntVector, Shop
from benchmarks.harness.report import Curve, Figure
from benchmarks.harness.searches import index, interests
from benchmarks.harness.servers import BenchmarkServers
from configs.loader import load_worker
from model.evaluation.search import exact_top
from streams.milvus.index import MilvusIndex

#: Candidates that HNSW looks at, `milvus.hnsw_ef`.
_EFS = (50, 70, 100, 200)
#: Lists that IVF_SQ8 makes: about four times the root of 368,000, as Milvus' documentation advises.
_LISTS = 2048
#: Lists that a search reads.
_PROBES = (8, 16, 32, 64)


class Compressed(MilvusIndex):
    """IVF_SQ8 in the place of HNSW; `milvus.hnsw_ef` says how many lists a search reads."""

    def _index_params(self) -> tuple[str, dict[str, int]]:
        return "IVF_SQ8", {"nlist": _LISTS}

    def _search_params(self, limit: int) -> dict[str, int]:  # noqa: ARG002 - reads whole lists
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
    for kind, effort, values in ((MilvusIndex, "ef", _EFS), (Compressed, "IVF_SQ8, lists", _PROBES)):
        with servers.index(shop.artifact, kind):
            for limit, how in ((top, ""), (asked, ", as the worker asks")):
                used = [n for n in values if n >= limit or kind is Compressed]
                points = []
                for n in used:
                    servers.report(f"Searching for {limit} items with {effort} {n}")
                    with index(servers, shop, f"milvus.hnsw_ef={n}", kind=kind) as milvus:
                        points.append(_search(milvus, queries, exact[:, :limit], limit, sizes["batch"]))
                found += _reported(effort, how, limit, used, points)
    return found


def _search(milvus: MilvusIndex, queries: FloatMatrix, exact: IntVector, limit: int, batch: int) -> tuple[float, float]:
    """Percent of `exact`, (Q, n) ids, that answers of `limit` items hold, and queries a second."""
    step = 4 * batch
    milvus.search(queries[:step], limit)  # warm
    begin = time.monotonic()
    found = [ids for at in range(0, len(queries), step) for ids in milvus.search(queries[at : at + step], limit)[0]]
    rate = len(queries) / (time.monotonic() - begin)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return 100 * hits / exact.size, rate


def _reported(
    effort: str, how: str, limit: int, used: Sequence[int], points: Sequence[tuple[float, float]]
) -> list[Figure | Curve]:
    recalls, rates = [recall for recall, _ in points], [rate for _, rate in points]
    return [
        *(Figure(f"recall@{limit} at {effort} {n}{how}", r, "%") for n, r in zip(used, recalls, strict=True)),
        *(Figure(f"speed at {effort} {n}{how}", r, "queries/s") for n, r in zip(used, rates, strict=True)),
        Curve(f"by {effort}{how}", f"recall@{limit}, %", "queries/s", recalls, rates),
    ]


_SHARED = {"dim": 64}
BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"items": 367_983, "users": 200_000, "clicks": 200_000, "queried": 2_560, "batch": 256} | _SHARED,
        # milvus-lite searches its own way; there, ef changes nothing.
        "lite": {"items": 2_000, "users": 200, "clicks": 200, "queried": 50, "batch": 4} | _SHARED,
    },
    kafka=False,
    milvus=True,
    curves=True,
)
