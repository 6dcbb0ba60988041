"""What the process says about itself over HTTP: /metrics, /healthz (should it be restarted?), /readyz (does it work?).

For probes and people on the same machine or network: it takes no input and shows nothing of users. Answers come from
memory; whether Milvus answers is found out by a thread of its own, and only while there is no traffic that tells.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import numpy as np
from prometheus_client import CollectorRegistry, make_wsgi_app

from streams.errors import FatalError, MindstreamError
from streams.ports import FloatArray, IdArray, IndexInfo, ItemIndex
from streams.worker.watchdog import Agent, Pulse, Watchdog

_LOG = logging.getLogger("mindstream.health")

#: Seconds without a run of the event loop from which on the process does not live.
_SILENCE = 10.0
#: Seconds without traffic after which Milvus is asked whether it is there.
_PING_EVERY = 5.0
#: Seconds that a client gets for its request and its answer together, and how many clients there may be at a time.
_CLIENT_TIMEOUT, _CLIENTS = 5.0, 64

_T = TypeVar("_T")


class ObservedIndex:
    """An `ItemIndex` that remembers whether it answered the last time.

    Args:
        inner: does the work.
        patience: seconds after which an answer proves nothing any more.
        clock: seconds, monotonic.
    """

    def __init__(self, inner: ItemIndex, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._patience = patience
        self._clock = clock
        self._answered = clock()
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """What is wrong with Milvus; None = it answered lately."""
        if self._fault is None and self.age > self._patience:
            return f"no answer for {self.age:.0f} s"
        return self._fault

    @property
    def age(self) -> float:
        """Seconds since the last answer, or the last fault."""
        return self._clock() - self._answered

    def ping(self) -> None:
        """Ask for something small, to find out whether Milvus is there."""
        with suppress(MindstreamError):  # remembered
            self.get(np.zeros(1, dtype=np.int64))  # 0 is padding: there is no such item

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        return self._observed(lambda: self._inner.search(queries, limit))

    def upsert(self, ids: IdArray, vectors: FloatArray) -> None:
        self._observed(lambda: self._inner.upsert(ids, vectors))

    def delete(self, ids: IdArray) -> None:
        self._observed(lambda: self._inner.delete(ids))

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        return self._observed(lambda: self._inner.get(ids))

    def settle(self) -> None:
        self._inner.settle()  # may be refused by a Milvus that is well: it was asked too often

    def describe(self) -> IndexInfo:
        return self._observed(self._inner.describe)

    def _observed(self, call: Callable[[], _T]) -> _T:
        try:
            result = call()
        except MindstreamError as error:
            self._fault, self._answered = str(error), self._clock()
            raise
        self._fault, self._answered = None, self._clock()
        return result


class Health:
    """Whether the process lives and whether it is ready, from what its parts say.

    Args:
        agents: name → agent.
        index: as the agents use it.
        watchdog: of the agents.
        pulse: of the event loop.
        model_version: that the process serves.
    """

    def __init__(
        self, agents: Mapping[str, Agent], index: ObservedIndex, watchdog: Watchdog, pulse: Pulse, model_version: str
    ) -> None:
        self._agents = agents
        self._index = index
        self._watchdog = watchdog
        self._pulse = pulse
        self._model_version = model_version

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether there is no reason to restart the process; and the reasons."""
        reasons = []
        if self._pulse.silence > _SILENCE:
            reasons.append(f"the event loop has not run for {self._pulse.silence:.0f} s")
        for topic, seconds in self._watchdog.standing().items():
            reasons.append(f"{topic} has stood still for {seconds:.0f} s while messages wait")
        return not reasons, {"live": not reasons, "reasons": reasons}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether clicks are answered; and what is missing for it.

        An agent without partitions, because there are more workers than partitions, is ready.
        """
        missing = []
        agents = {}
        for name, agent in self._agents.items():
            state = agent.state()
            # Without partitions there is nothing to restore; the first look of the batch thread is still due.
            restored = state.restored or state.owned == frozenset()
            agents[name] = {"partitions": None if state.owned is None else sorted(state.owned), "restored": restored}
            if state.owned is None:
                missing.append(f"{name}: no assignment of partitions yet")
            elif not restored:
                missing.append(f"{name}: histories are being restored")
            if state.retrying:
                missing.append(f"{name}: {state.doing} has been tried again for {state.retrying:.0f} s")
        faults = {"milvus": self._index.fault, "kafka": self._watchdog.kafka_fault}
        missing += [f"{name}: {fault}" for name, fault in faults.items() if fault is not None]
        return not missing, {
            "ready": not missing,
            "missing": missing,
            "agents": agents,
            "model_version": self._model_version,
            **{name: "answers" if fault is None else fault for name, fault in faults.items()},
        }

    def ping(self) -> None:
        """Ask Milvus, if no traffic has lately."""
        if self._index.age > _PING_EVERY:
            self._index.ping()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each client, so many at a time, so long each."""

    daemon_threads = True
    request_queue_size = _CLIENTS

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self._places = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks DNS for the name of the host
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # A time-out of the socket alone would let a client send a byte now and then for ever.
        cut = threading.Timer(_CLIENT_TIMEOUT, self._cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._places.release()

    def handle_error(self, *_: Any) -> None:
        _LOG.debug("a client of the health port went away", exc_info=True)

    def _cut(self, request: socket.socket) -> None:
        with suppress(OSError):  # it may have gone already
            request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT

    def log_message(self, *_: Any) -> None:
        """A line for each probe is noise."""


def serve(host: str, port: int, health: Health, registry: CollectorRegistry) -> int:
    """Answer in threads of its own until the process ends.

    Returns:
        The port; a free one if `port` is 0.

    Raises:
        FatalError: the address cannot be used.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        answers = {"/healthz": health.live, "/readyz": health.ready}
        if path not in answers:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /healthz, /readyz\n"]
        well, body = answers[path]()
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [json.dumps(body).encode() + b"\n"]

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = _Server(family, (str(address[0]), int(address[1])))
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise FatalError(
            f"worker.metrics_port {port} on worker.metrics_host {host} {reason}; give each worker a port of its own "
            "(--set worker.metrics_port=PORT), or 0 for none"
        ) from None
    server.set_app(app)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    threading.Thread(target=_ping_regularly, args=(health,), name="ping", daemon=True).start()
    return int(server.server_port)


def _ping_regularly(health: Health) -> None:
    while True:
        time.sleep(_PING_EVERY)
        try:
            health.ping()
        except Exception:  # noqa: BLE001 - a defect, or pymilvus at its end; the fault shows as "no answer"
            _LOG.exception("the ping of Milvus failed")
