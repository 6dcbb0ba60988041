"""A service over a small model and a memory index, with copies that a test fills."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from configs.loader import load_service
from model.arrays import FloatArray
from model.artifact import Artifact
from streams.errors import RestartRequired
from streams.messages.recommendations import Recommendation
from streams.metrics import ServiceMetrics
from streams.milvus.observed import ObservedIndex
from streams.ports import ReplicaLag
from streams.recall.factory import build_engine, required_items, verified
from streams.recall.memory import MemoryIndex
from streams.service.access import load_access
from streams.service.app import service_app
from streams.service.health import Health, Replica
from streams.service.parts import ServiceParts, local_calls, milvus_calls
from streams.service.ports import UserHistory
from streams.service.process import ROUTERS
from streams.service.recommending import Recommender
from streams.worker.catalogue import Catalogue
from tests.unit.fakes import FailingIndex
from tests.unit.model.test_evaluate import IDS, artifact, axes
from tests.unit.streams.service.item_stream import ClickStream, ItemStream, memory_writes


class MemoryHistories:
    """Histories in a dict."""

    def __init__(self) -> None:
        self.users: dict[str, UserHistory] = {}
        self.now = ReplicaLag(0, 0.5, caught_up=True)

    def get(self, user_ids: Sequence[str]) -> list[UserHistory | None]:
        return [self.users.get(user_id) for user_id in user_ids]

    def lag(self) -> ReplicaLag:
        return self.now


class MemoryNewest:
    """Recommendations in a dict."""

    def __init__(self) -> None:
        self.users: dict[str, Recommendation] = {}
        self.now = ReplicaLag(0, 0.5, caught_up=True)

    def get(self, user_id: str) -> Recommendation | None:
        return self.users.get(user_id)

    def lag(self) -> ReplicaLag:
        return self.now


class ServiceWorld:
    """The app with all routes, and its parts. The model has the items 10, 20, …, 60; see `model.test_evaluate`.

    Args:
        folder: for the model.
        overrides: settings.
        vectors: of the items; None = those of `axes`, which no item worker would accept: their norms are not 1.
    """

    def __init__(self, folder: Path, *overrides: str, vectors: FloatArray | None = None) -> None:
        vectors = axes() if vectors is None else vectors
        config = load_service(None, ["recall.top_k=3", *overrides], {})
        model = Artifact.load(artifact(folder / "artifact", vectors=vectors))
        self.memory = MemoryIndex(model.model_version, model.dim)
        self.memory.upsert(IDS, vectors, np.array([[0, 7]] * len(IDS)))
        self.index = FailingIndex(self.memory, 0)
        observed = ObservedIndex(self.index, max_age_s=60.0)
        self.registry = CollectorRegistry()
        metrics = ServiceMetrics(self.registry)
        self.catalogue = Catalogue(observed, required_items(config.recall, model), self.registry)
        self.catalogue.count()
        searches = verified(config.recall, model, observed, lambda: None)
        engine = build_engine(config.recall, model, searches)
        milvus = milvus_calls(config.service)
        self.restarts: list[RestartRequired] = []
        self.histories, self.newest = MemoryHistories(), MemoryNewest()
        self.clicks, self.items = (
            ClickStream(),
            ItemStream(index=self.memory, version=model.model_version, dim=model.dim),
        )
        copies: dict[str, Replica] = {"histories": self.histories, "recommendations": self.newest}
        self.health = Health(observed, searches, self.catalogue, copies, model.model_version, self.restarts.append)
        self.parts = ServiceParts(
            config=config,
            artifact=model,
            access=load_access(config.service),
            index=observed,
            milvus=milvus,
            local=local_calls(config.service),
            engine=engine,
            recommender=Recommender(engine, config.recall.top_k + config.history.length, config.service, metrics),
            histories=self.histories,
            newest=self.newest,
            writes=memory_writes(config, model, observed, milvus, self.clicks, self.items),
            health=self.health,
            stopping=self.items.stopping,
            registry=self.registry,
        )
        self.app = service_app(config.service, [router(self.parts) for router in ROUTERS], metrics)
        self.client = TestClient(self.app, "http://localhost")
