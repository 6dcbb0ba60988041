"""Clients of a service over HTTP; each sends its next request when the one before is answered.

They share the cores with what they measure. So they run in one thread, requests are packed beforehand, and of an answer
only status and end are looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools
import orjson

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.usage import cpu_seconds
from embedded import ports
from embedded.program import Program
from model.arrays import IntVector

#: Seconds that an answer may take.
_TIMEOUT_S = 60.0
#: Seconds of requests that are not measured: the first ones open connections, and fill caches.
_WARM_UP_S = 0.5
#: Bytes of an answer that an error shows.
_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """The measurements of the clients.

    Attributes:
        rate: users/s that were answered.
        seconds: of each request.
        cpu: process → CPU seconds in that time.
    """

    rate: float
    seconds: list[float]
    cpu: dict[str, float]


@dataclass(frozen=True, slots=True)
class HttpService:
    """A running service that recommends to histories.

    Attributes:
        program: its process.
        port: on this machine.
        path: of the POST request.
        body: histories → the request's body, before it is packed as JSON.
    """

    program: Program
    port: int
    path: str
    body: Callable[[list[list[int]]], object]

    def send_requests(
        self,
        histories: Sequence[IntVector],
        *,
        clients: int,
        users: int,
        seconds: float,
        cpu: Callable[[], Mapping[str, float]] = dict,
    ) -> RequestTimes:
        """Send requests for some time.

        Args:
            histories: clicked items to send, in turn.
            clients: number of concurrent clients.
            users: histories per request.
            seconds: duration.
            cpu: returns other processes → CPU seconds so far.

        Raises:
            BenchmarkError: a request failed.
        """

        def used() -> dict[str, float]:
            own = {"the service": cpu_seconds(self.program.pid), "the clients": time.process_time()}
            return own | dict(cpu())

        requests = [
            self._request([history.tolist() for history in histories[begin : begin + users]])
            for begin in range(0, len(histories) - users + 1, users)
        ]
        asyncio.run(self._send(requests, clients, min(_WARM_UP_S, seconds)))
        before, begin = used(), time.monotonic()
        taken = asyncio.run(self._send(requests, clients, seconds))
        rate = users * len(taken) / (time.monotonic() - begin)
        return RequestTimes(rate, taken, {name: after - before[name] for name, after in used().items()})

    def _request(self, histories: list[list[int]]) -> bytes:
        body = orjson.dumps(self.body(histories))
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {ports.HOST}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _send(self, requests: Sequence[bytes], clients: int, seconds: float) -> list[float]:
        """Return the seconds of each request."""
        loop, end = asyncio.get_running_loop(), time.monotonic() + seconds
        running = [_Client(requests[number::clients] or requests, end) for number in range(clients)]
        try:
            for client in running:
                await loop.create_connection(lambda client=client: client, ports.HOST, self.port)  # type: ignore[misc]
            await asyncio.wait_for(asyncio.gather(*(client.done for client in running)), seconds + _TIMEOUT_S)
        except (OSError, asyncio.TimeoutError) as error:
            raise BenchmarkError(f"{self.program.name} does not answer: {error!r}") from None
        finally:
            for client in running:
                client.close()
        return [s for client in running for s in client.seconds]


class _Client(asyncio.Protocol):
    """One connection.

    Args:
        requests: to send, in turn.
        end: `time.monotonic()` after which no request is sent.

    Attributes:
        seconds: of each answered request.
        done: ends after the last answer, or with a `BenchmarkError`.
    """

    def __init__(self, requests: Sequence[bytes], end: float) -> None:
        self.seconds: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._end = end
        self._asked_at = 0.0
        self._shown = b""
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_with(BenchmarkError(f"the connection was lost: {exc!r}"))

    def on_body(self, body: bytes) -> None:
        self._shown = body[:_SHOWN_BYTES]

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            self._end_with(BenchmarkError(f"a request was answered with status {status}: {self._shown!r}"))
            return
        self.seconds.append(time.monotonic() - self._asked_at)
        self._ask()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        if self._asked_at >= self._end:
            self._end_with(None)
        else:
            assert self._transport is not None  # the connection was made
            self._transport.write(self._requests[len(self.seconds) % len(self._requests)])

    def _end_with(self, error: BenchmarkError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
