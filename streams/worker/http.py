"""The HTTP server of /metrics, /healthz and /readyz, for probes and people on the same machine or network.

It takes no input and shows no user's data.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from configs.errors import FatalError
from streams.worker.health import PING_INTERVAL_S, Health

_LOG = logging.getLogger("mindstream.health")

#: Seconds that a client gets for its request and its answer together, and most clients at a time.
_CLIENT_TIMEOUT_S, _MAX_CLIENTS = 5.0, 64


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each client in a thread of its own, for `_CLIENT_TIMEOUT_S`, and `_MAX_CLIENTS` of them at a time."""

    daemon_threads = True
    request_queue_size = _MAX_CLIENTS

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self._slots = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's method would look up the host's name in DNS
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # A timeout of the socket would let a client stay for as long as it sends a byte now and then.
        cut = threading.Timer(_CLIENT_TIMEOUT_S, self._cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._slots.release()

    def handle_error(self, *_: Any) -> None:
        _LOG.debug("a client of the health port closed its connection", exc_info=True)

    def _cut(self, request: socket.socket) -> None:
        with suppress(OSError):  # the client may have closed it already
            request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, *_: Any) -> None:
        """Log nothing: a line for each probe is noise."""


def serve(host: str, port: int, health: Health, registry: CollectorRegistry) -> int:
    """Answer requests in other threads until the process ends.

    Args:
        host, port: the address to listen on; port 0 = any free port.
        health: answers /healthz and /readyz.
        registry: the metrics of /metrics.

    Returns:
        The port that it listens on.

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
        ok, body = answers[path]()
        start_response("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "application/json")])
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
        time.sleep(PING_INTERVAL_S)
        try:
            health.ping()
        except Exception:  # noqa: BLE001 - a defect of ours or of pymilvus; /readyz shows that Milvus does not answer
            _LOG.exception("the ping of Milvus failed")
