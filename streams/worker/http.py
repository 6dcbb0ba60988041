"""The HTTP server of /metrics, /healthz and /readyz."""

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
from streams.worker.health import PING_EVERY, Health

_LOG = logging.getLogger("mindstream.health")


#: Seconds that a client gets for its request and its answer together, and how many clients there may be at a time.
_CLIENT_TIMEOUT, _CLIENTS = 5.0, 64


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
        time.sleep(PING_EVERY)
        try:
            health.ping()
        except Exception:  # noqa: BLE001 - a defect, or pymilvus at its end; the fault shows as "no answer"
            _LOG.exception("the ping of Milvus failed")
