"""The frame of every request: an id, a check of the host's name, a limit on the body, an answer whatever happens, a log
line, metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Collection, Iterable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.metrics import ServiceMetrics
from streams.service.problems import Problem, as_problem, problem_response, unavailable

_LOG = logging.getLogger("mindstream.requests")

REQUEST_ID = "X-Request-ID"
#: Ids of callers that are adopted; others could forge log lines.
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
#: The port at the end of a Host header; the address of an IPv6 host is in brackets.
_PORT = re.compile(r":\d*$")
#: Routes of probes, which are not logged, and show no user.
_PROBES = {"/healthz", "/readyz", "/metrics"}


class RequestFrame:
    """ASGI middleware around all routes.

    The log has method, route, status, duration and id of a request: neither its path nor its query, which name users.

    Args:
        app: the routes.
        max_body_bytes: largest body.
        hosts: names under which callers may reach the service, in lower case; None = any.
        metrics: counts requests by route, which is the template of the path.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, hosts: Collection[str] | None, metrics: ServiceMetrics
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._hosts = hosts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status: int | None = None
        endless = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, endless
            if message["type"] == "http.response.start":
                status = message["status"]
                endless = dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream")
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
            await send(message)

        try:
            if scope["path"] not in _PROBES:  # which name an address
                self._check_host(scope["headers"])
            await self._app(scope, self._limited(scope, receive), send_with_id)
        except asyncio.CancelledError:  # the service stops
            if status is not None:
                raise
            status = HTTPStatus.SERVICE_UNAVAILABLE.value
            problem = unavailable("this service is being stopped; try again")
            await problem_response(problem, request_id)(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - a defect; callers get no stack trace
            problem = as_problem(error)
            if status is None:
                await problem_response(problem, request_id)(scope, receive, send_with_id)
        finally:
            route = _template(scope)
            seconds = time.perf_counter() - started
            self._metrics.requests.labels(route, str(status or HTTPStatus.INTERNAL_SERVER_ERROR.value)).inc()
            if not endless:  # it took as long as the caller listened
                self._metrics.seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route in _PROBES else logging.INFO
            _LOG.log(level, "%s %s %s %.1f ms %s", scope["method"], route, status, seconds * 1000, request_id)

    def _check_host(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse requests for other hosts: a page on the internet can have its own name resolved to this machine.

        The browser then lets it read answers that are open to everybody on this machine.
        """
        if self._hosts is None:
            return
        host = dict(headers).get(b"host", b"").decode("latin-1").lower()
        if _PORT.sub("", host) not in self._hosts:
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "host-unknown",
                "the service is not known under this host name: add it to service.allowed_hosts",
            )

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` for a body within the limit, whatever its declared length."""
        declared = dict(scope["headers"]).get(b"content-length", b"")
        received = int(declared) if declared.isdigit() else 0
        counted = 0

        async def receive_limited() -> Message:
            nonlocal counted
            self._check(received)
            message = await receive()
            counted += len(message.get("body", b""))
            self._check(counted)
            return message

        return receive_limited

    def _check(self, body_bytes: int) -> None:
        if body_bytes > self._max_body_bytes:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "body-too-large",
                f"the body has more than {self._max_body_bytes} bytes (service.max_body_bytes); send fewer users",
            )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == REQUEST_ID.lower().encode() and _SANE_ID.fullmatch(text := value.decode("latin-1")):
            return text
    return uuid.uuid4().hex


def _template(scope: Scope) -> str:
    """Return the template of the path, such as /v1/items/{item_id}, which is bounded and names no user."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"
