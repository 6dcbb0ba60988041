"""The worker's searches, sent to Milvus directly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.harness.data import Shop, Traffic
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import BenchmarkSite
from configs.loader import load_worker
from model.arrays import FloatMatrix
from model.serving.encoder import Encoder
from model.serving.inputs import model_input
from streams.milvus.index import MilvusIndex

#: Number of searches whose time is taken.
_SEARCHES = 20


def interests(shop: Shop, traffic: Traffic, users: int) -> FloatMatrix:
    """Return (users, 4, D) interest vectors, computed from users' histories at clicks drawn at random."""
    artifact = shop.artifact
    histories = traffic.histories(users, artifact.history_length, np.random.default_rng(0))
    rows, lengths = model_input([artifact.rows(h) for h in histories], artifact.history_length)
    return Encoder.from_artifact(artifact).encode(np.asarray(artifact.item_vectors)[rows], lengths)


def search_seconds(servers: BenchmarkServers, site: BenchmarkSite, shop: Shop, users: int) -> list[float]:
    """Return the seconds of searches for `users` users, as a worker makes them, one after the other."""
    queries = interests(shop, shop.rounds(), users).reshape(-1, shop.artifact.dim)
    limit = site.config.recall.top_k + site.config.history.length
    taken = []
    with open_index(servers, shop) as milvus:
        for _ in range(_SEARCHES):
            begin = time.monotonic()
            milvus.search(queries, limit)
            taken.append(time.monotonic() - begin)
    return taken


@contextmanager
def open_index(
    servers: BenchmarkServers, shop: Shop, *settings: str, kind: type[MilvusIndex] = MilvusIndex
) -> Iterator[MilvusIndex]:
    """Open the index of the shop's items, which `BenchmarkServers.index` has written, as a worker does.

    Args:
        settings: "key=value", overrides of the shipped configuration.
        kind: as in `BenchmarkServers.index`.
    """
    config = load_worker(overrides=[f"milvus.uri={servers.milvus_uri()}", "milvus.timeout=60", *settings]).milvus
    opened = kind(config, shop.artifact.model_version, shop.artifact.dim, create=False)
    try:
        yield opened
    finally:
        opened.close()
