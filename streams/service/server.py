"""Uvicorn's server with two corrections: it leaves signals to others, and a request has to arrive in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds within which the head of a request must have arrived, and from then on its body.
HEAD_S, BODY_S = 10.0, 60.0
#: Seconds that requests may take once the process has to end.
GRACE_S = 2
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to `streams.worker.signals`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(app: FastAPI) -> Server:
    """Return the server of an app."""
    return Server(
        uvicorn.Config(
            app,
            http=RequestsInTime,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
    )


class RequestsInTime(HttpToolsProtocol):
    """HTTP of one connection, which is closed if a request does not arrive in time.

    Uvicorn has no such limit: clients that send a byte now and then would keep connections, of which the system grants
    a limited number, for as long as they like. The time between two requests has uvicorn's own limit.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._allow(HEAD_S)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        cycle = self.cycle  # of the newest request whose head has arrived
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            self._cancel()
        elif cycle is not before:
            self._allow(BODY_S)
        elif self._deadline is None:
            self._allow(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _allow(self, seconds: float) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(seconds, self._close)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_TIMEOUT)
        self.transport.close()
