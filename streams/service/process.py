"""One service process: build the parts, serve until a signal, exit status."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from configs.errors import EXIT_DEFECT, FatalError, MindstreamError
from configs.schema import Service, ServiceConfig
from streams.metrics import ReplicaMetrics, ServiceMetrics, worker_registry
from streams.milvus.index import MilvusIndex
from streams.milvus.observed import ObservedIndex
from streams.recall.factory import build_engine, load_artifact, required_items, verified
from streams.service.access import Access, is_local, load_access
from streams.service.app import service_app
from streams.service.health import Health, Replica
from streams.service.page_build import page_router
from streams.service.parts import Router, ServiceParts, local_calls, milvus_calls
from streams.service.published import published_router, recall_router
from streams.service.recommending import Recommender
from streams.service.replicas import Replicas, open_replicas
from streams.service.routes import health_router, reading_router, recommending_router
from streams.service.server import Server, server_of
from streams.service.write_parts import build_writes
from streams.service.write_routes import writing_router
from streams.worker.catalogue import Catalogue
from streams.worker.signals import on_stop_signal

_LOG = logging.getLogger("mindstream.service")

#: What makes the routes, in the order in which paths are compared.
ROUTERS: tuple[Router, ...] = (
    health_router,
    recommending_router,
    reading_router,
    writing_router,
    recall_router,
    published_router,
    page_router,
)
#: Seconds after which the process ends in any case, once it has to end.
_SHUTDOWN_S = 4.0


class _Ending:
    """Ends the process in time, from any thread.

    Args:
        exit_process: ends the process with a status, at once.

    Attributes:
        status: exit status.
        stopping: set as soon as the process has to end, before requests are cancelled.
    """

    def __init__(self, exit_process: Callable[[int], object] = os._exit) -> None:
        self.status = 0
        self.stopping = threading.Event()
        self._exit = exit_process
        self.server: Server | None = None
        self._begun = threading.Lock()

    def on_error(self, error: MindstreamError) -> None:
        """End with the status of an error, after which this process cannot continue."""
        _LOG.critical("%s", error)
        self._end(error.exit_status)

    def on_signal(self, name: str) -> None:
        """End as requested."""
        _LOG.info("%s: stopping", name)
        self._end(0)

    def _end(self, status: int) -> None:
        if not self._begun.acquire(blocking=False):
            return
        self.status = status
        self.stopping.set()
        threading.Thread(target=self._exit_late, name="deadline", daemon=True).start()
        if self.server is None:  # it does not run yet
            self._exit(status)
        else:
            self.server.should_exit = True

    def _exit_late(self) -> None:
        time.sleep(_SHUTDOWN_S)
        self._exit(self.status)


def build(config: ServiceConfig, on_error: Callable[[MindstreamError], object], stopping: threading.Event) -> FastAPI:
    """Check everything that the service needs, then build its parts and its app.

    Args:
        config: the settings.
        on_error: called from any thread when the process must end.
        stopping: set when the process has to end.

    Raises:
        FatalError: something cannot work; the message names the command or setting that fixes it.
        TransientError: Kafka or Milvus is unavailable.
        RestartRequired: the disk is full, or another process uses the folder of the copies.
    """
    access = load_access(config.service)
    _warn_of_open_reads(config.service, access)
    artifact = load_artifact(config)
    version = artifact.model_version
    milvus = MilvusIndex(config.milvus, version, artifact.dim, create=False)
    index = ObservedIndex(milvus, max_age_s=2 * config.milvus.timeout + 10)
    registry = worker_registry(version)
    metrics = ServiceMetrics(registry)
    catalogue = Catalogue(index, required_items(config.recall, artifact), registry)
    searches = verified(config.recall, artifact, index, metrics.short_searches.inc)
    engine = build_engine(config.recall, artifact, searches)
    milvus_threads = milvus_calls(config.service)
    rows = catalogue.count()
    replicas = open_replicas(config, on_error, ReplicaMetrics(registry))
    _LOG.info("model %s: %d items, %d in Milvus", version, len(artifact.item_ids), rows)
    copies: dict[str, Replica] = {"histories": replicas.histories, "recommendations": replicas.recommendations}
    parts = ServiceParts(
        config=config,
        artifact=artifact,
        access=access,
        index=index,
        milvus=milvus_threads,
        local=local_calls(config.service),
        engine=engine,
        recommender=Recommender(engine, config.recall.top_k + config.history.length, config.service, metrics),
        histories=replicas.histories,
        newest=replicas.recommendations,
        writes=build_writes(config, artifact, index, milvus_threads, stopping),
        health=Health(index, searches, catalogue, copies, version, on_error),
        stopping=stopping,
        registry=registry,
    )
    running = [_closing(replicas), parts.health.pinging(), parts.writes.closing()]
    return service_app(config.service, [router(parts) for router in ROUTERS], metrics, running, on_error)


@asynccontextmanager
async def _closing(replicas: Replicas) -> AsyncIterator[None]:
    try:
        yield
    finally:
        replicas.close()


def run(config: ServiceConfig) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status. Raises as `build`."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # A batch's matrices are too small for a second thread to help, and BLAS' threads spin between them.
    threadpool_limits(1, user_api="blas")
    listener = listen(config.service)
    ending = _Ending()
    app = build(config, ending.on_error, ending.stopping)
    # What has been loaded is never garbage: searching it for cycles held up requests for 100 ms.
    gc.collect()
    gc.freeze()
    server = server_of(app)
    ending.server = server
    on_stop_signal(lambda number: ending.on_signal(number.name))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _LOG.info("listening on http://%s:%d (documentation at /docs)", shown, port)
    server.run(sockets=[listener])
    status = ending.status if server.started else EXIT_DEFECT
    _LOG.log(logging.CRITICAL if status else logging.INFO, "exited with status %d", status)
    return status


def listen(settings: Service) -> socket.socket:
    """Return a socket that listens on the service's address.

    Raises:
        FatalError: the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        # With the protocol named: without it, asyncio leaves Nagle's algorithm on, and each answer takes 40 ms longer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise FatalError(
            f"service.port {settings.port} on service.host {settings.host} {reason}; give each service an address of "
            "its own (--set service.port=PORT)"
        ) from None
    return listener


def _warn_of_open_reads(settings: Service, access: Access) -> None:
    if access.is_open("read") and not is_local(settings.host):
        _LOG.warning(
            "everybody who reaches %s may read users' histories: set MINDSTREAM_SERVICE_READ_TOKEN", settings.host
        )
