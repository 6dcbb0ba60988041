"""The parts that the routes use, and the type of what makes routes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from configs.schema import Service, ServiceConfig
from model.artifact import Artifact
from streams.milvus.observed import ObservedIndex
from streams.recall.engine import RecallEngine
from streams.service.access import Access
from streams.service.health import Health
from streams.service.ports import NewestRecommendations, UserHistories
from streams.service.recommending import Recommender
from streams.service.threads import ThreadCalls
from streams.service.write_parts import Writes


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """The parts of one service.

    Attributes:
        config, artifact: settings and model.
        access: who may do what.
        index: the collection of the model's items; read through `milvus`.
        milvus, local: threads of calls that wait for Milvus, and for local stores.
        engine: use it through `recommender.calls.in_thread`, which bounds what waits for Milvus.
        recommender: recommends to users.
        histories, newest: copies of what the workers write; read through `local`.
        writes: writes clicks and items to their topics.
        health: what is missing.
        stopping: set when the process has to end.
        registry: exports metrics.
    """

    config: ServiceConfig
    artifact: Artifact
    access: Access
    index: ObservedIndex
    milvus: ThreadCalls
    local: ThreadCalls
    engine: RecallEngine
    recommender: Recommender
    histories: UserHistories
    newest: NewestRecommendations
    writes: Writes
    health: Health
    stopping: threading.Event
    registry: CollectorRegistry


def milvus_calls(settings: Service) -> ThreadCalls:
    """Return the threads of the calls that wait for Milvus."""
    return ThreadCalls("milvus", 8, settings.queue_users, settings.timeout)


def local_calls(settings: Service) -> ThreadCalls:
    """Return the threads of the calls that read local stores."""
    return ThreadCalls("local", 4, settings.queue_users, settings.timeout)


#: Makes the routes of one concern; `streams.service.process` lists them.
Router = Callable[[ServiceParts], APIRouter]
