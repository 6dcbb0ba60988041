"""What the approximate search of Milvus finds of what an exact one finds, for the same queries, and how fast, by ef.

Queries are interest vectors of generated users' histories, searched in batches as the worker does. Recall@50 is the
share of the 50 items with the largest inner products that the answer holds. Item vectors lie around the centres of
tastes, as those of a trained model do (`benchmarks.data.Shop`); vectors without any structure are harder.
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
from model.evaluation.search import exact_top

#: Items looked for, and candidates that HNSW looks at: at least as many.
_TOP = 50
_EFS = (50, 70, 100, 200)


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure | Curve]:
    shop = Shop.of(stage.folder / "recall", sizes)
    queries = interests(shop, shop.rounds(), sizes["queried"]).reshape(-1, shop.artifact.dim)  # (Q, D)
    stage.report(f"Searching exactly for {len(queries):,} queries")
    vectors = np.asarray(shop.artifact.item_vectors)
    exact = shop.artifact.item_ids[exact_top(queries[:, None], vectors, _TOP, fusion=0)]  # (Q, 50)
    recalls, rates = [], []
    with stage.index(shop.artifact):
        for ef in _EFS:
            stage.report(f"Searching with ef {ef}")
            found, rate = _search(stage, shop, queries, ef, sizes["batch"])
            hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
            recalls.append(100 * hits / exact.size)
            rates.append(rate)
    return [
        *(Figure(f"recall@{_TOP} at ef {ef}", recall, "%") for ef, recall in zip(_EFS, recalls, strict=True)),
        *(Figure(f"speed at ef {ef}", rate, "queries/s") for ef, rate in zip(_EFS, rates, strict=True)),
        Curve("by ef", f"recall@{_TOP}, %", "queries/s", recalls, rates),
    ]


def _search(stage: Stage, shop: Shop, queries: FloatMatrix, ef: int, batch: int) -> tuple[IntVector, float]:
    """(Q, 50) the ids found, and queries a second."""
    step = 4 * batch
    with index(stage, shop, f"milvus.hnsw_ef={ef}") as milvus:
        milvus.search(queries[:step], _TOP)  # warm
        begin = time.monotonic()
        found = [milvus.search(queries[at : at + step], _TOP)[0] for at in range(0, len(queries), step)]
        return np.concatenate(found), len(queries) / (time.monotonic() - begin)


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
)
