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
        super().data_received(data)
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._deadline is None and self.timeout_keep_alive_task is None:
            self._allow(HEAD_S)  # bytes between two requests end uvicorn's limit

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._allow(HEAD_S)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._allow(BODY_S)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._cancel()
        if self.cycle.response_complete:  # it was answered before its body had arrived
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

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
        if self.flow.read_paused:  # by uvicorn: this request, or the one before, is being answered
            self._allow(BODY_S)
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_TIMEOUT)
        self.transport.close()
