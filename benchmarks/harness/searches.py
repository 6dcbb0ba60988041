"""The worker's searches, sent straight to Milvus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.harness.data import Shop, Traffic
from benchmarks.harness.servers import BenchmarkServers
from configs.loader import load_worker
from model.arrays import FloatMatrix
from model.serving.encoder import Encoder
from model.serving.inputs import model_input
from streams.milvus.index import MilvusIndex


def interests(shop: Shop, traffic: Traffic, users: int) -> FloatMatrix:
    """(users, 4, D) interest vectors of users as they are at clicks drawn at random."""
    artifact = shop.artifact
    histories = traffic.histories(users, artifact.history_length, np.random.default_rng(0))
    places, lengths = model_input([artifact.rows(h) for h in histories], artifact.history_length)
    return Encoder.from_artifact(artifact).encode(np.asarray(artifact.item_vectors)[places], lengths)


@contextmanager
def index(
    stage: BenchmarkServers, shop: Shop, *settings: str, kind: type[MilvusIndex] = MilvusIndex
) -> Iterator[MilvusIndex]:
    """The shop's items as a worker searches them; `BenchmarkServers.index` has put them there.

    Args:
        settings: "key=value", beside those that are shipped.
        kind: that of `BenchmarkServers.index`.
    """
    config = load_worker(overrides=[f"milvus.uri={stage.milvus_uri()}", "milvus.timeout=60", *settings]).milvus
    opened = kind(config, shop.artifact.model_version, shop.artifact.dim, create=False)
    try:
        yield opened
    finally:
        opened.close()
