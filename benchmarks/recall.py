"""What the approximate search of Milvus finds of what an exact one finds, for the same queries, and how fast, by ef.

Queries are interest vectors of generated users' histories, searched in batches as the worker does. Recall@50 is the
share of the 50 items with the largest inner products that an answer of 50 holds. The worker asks for more, because it
leaves out what the user has seen: for `recall.top_k` items and as many as the history holds, 70 as shipped. "As the
worker asks" is an answer of that length, all of it compared. HNSW looks at as many candidates as it is asked for at
least, so a smaller `milvus.hnsw_ef` changes nothing for the worker. Item vectors lie around the centres of tastes, as
those of a trained model do (`benchmarks.data.Shop`); vectors without any structure are harder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import FloatMatrix, IntVector, Shop
from benchmarks.report import Curve, Figure
from benchmarks.searches import index, interests
from benchmarks.stage import Stage
from configs.loader import load_worker
from model.evaluation.search import exact_top

#: Candidates that HNSW looks at, `milvus.hnsw_ef`.
_EFS = (50, 70, 100, 200)


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.of(stage.folder / "recall", sizes)
    config = load_worker()
    limits = {"": config.recall.top_k, ", as the worker asks": config.recall.top_k + config.history.length}
    queries = interests(shop, shop.rounds(), sizes["queried"]).reshape(-1, shop.artifact.dim)  # (Q, D)
    stage.report(f"Searching exactly for {len(queries):,} queries")
    vectors, most = np.asarray(shop.artifact.item_vectors), min(max(limits.values()), sizes["items"])
    exact = shop.artifact.item_ids[exact_top(queries[:, None], vectors, most, fusion=0)]  # (Q, most)
    found: list[Figure | Curve] = []
    with stage.index(shop.artifact):
        for how, limit in limits.items():
            efs = [ef for ef in _EFS if ef >= limit]
            points = [_search(stage, shop, queries, exact[:, :limit], limit, ef, sizes["batch"]) for ef in efs]
            recalls, rates = [recall for recall, _ in points], [rate for _, rate in points]
            found += [Figure(f"recall@{limit} at ef {ef}{how}", r, "%") for ef, r in zip(efs, recalls, strict=True)]
            found += [Figure(f"speed at ef {ef}{how}", r, "queries/s") for ef, r in zip(efs, rates, strict=True)]
            found.append(Curve(f"by ef{how}", f"recall@{limit}, %", "queries/s", recalls, rates))
    return found


def _search(
    stage: Stage, shop: Shop, queries: FloatMatrix, exact: IntVector, limit: int, ef: int, batch: int
) -> tuple[float, float]:
    """Percent of `exact`, (Q, n) ids, that answers of `limit` items hold, and queries a second."""
    stage.report(f"Searching for {limit} items with ef {ef}")
    step = 4 * batch
    with index(stage, shop, f"milvus.hnsw_ef={ef}") as milvus:
        milvus.search(queries[:step], limit)  # warm
        begin = time.monotonic()
        found = [ids for at in range(0, len(queries), step) for ids in milvus.search(queries[at : at + step], limit)[0]]
        rate = len(queries) / (time.monotonic() - begin)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return 100 * hits / exact.size, rate


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
