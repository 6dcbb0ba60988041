"""One record producer for concurrent requests: what arrives together is acknowledged together."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from configs.errors import MindstreamError, TransientError
from streams.ports import Output, RecordProducer

_LOG = logging.getLogger("mindstream.service")

#: Bytes of messages that may wait for a producer; more are refused.
_MAX_WAITING_BYTES = 64 * 2**20
#: Seconds that `close` waits for the messages that wait.
_CLOSE_TIMEOUT_S = 1.0
#: Bytes that a waiting message takes beside key and value.
_OVERHEAD_BYTES = 512


class Written(NamedTuple):
    """The place of an acknowledged message on its topic."""

    partition: int
    offset: int


class NotAcknowledged(TransientError):  # noqa: N818 - what has happened
    """Kafka has not acknowledged a request's messages in time.

    Attributes:
        maybe_written: whether they may have been written nevertheless; False = none was.
    """

    def __init__(self, detail: str, *, maybe_written: bool) -> None:
        consequence = (
            "the messages may or may not have been written: an item can safely be sent again, a click may then count "
            "twice"
            if maybe_written
            else "nothing was written: send it again"
        )
        super().__init__("Kafka", f"{detail}; {consequence}")
        self.maybe_written = maybe_written


@dataclass(frozen=True, slots=True)
class _Request:
    outputs: Sequence[Output]
    size_bytes: int
    offsets: Future[Sequence[int]] = field(default_factory=Future)


class SharedProducer:
    """Lets concurrent requests write through one record producer, in a thread of its own.

    All requests that arrive while the producer waits for acknowledgements form the next batch. So a request waits for
    at most one batch before its own, and none waits for a timer.

    A request that is not acknowledged in time is withdrawn if the producer has not begun with it.

    Args:
        producer: for this thread only.
        timeout_s: seconds within which a request must be acknowledged.
        max_waiting_bytes: bytes of messages that may wait for the producer.
    """

    def __init__(self, producer: RecordProducer, timeout_s: float, max_waiting_bytes: int = _MAX_WAITING_BYTES) -> None:
        self._producer = producer
        self._timeout_s = timeout_s
        self._max_waiting_bytes = max_waiting_bytes
        self._changed = threading.Condition()  # guards all below
        self._waiting: list[_Request] = []
        self._waiting_bytes = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    async def write(self, outputs: Sequence[Output]) -> list[Written]:
        """Write messages that name their partitions; return when all of them are acknowledged.

        Raises:
            NotAcknowledged: Kafka is unavailable, or too many messages wait.
            FatalError: Kafka refuses the messages.
        """
        request = _Request(outputs, sum(len(o.key or b"") + len(o.value or b"") + _OVERHEAD_BYTES for o in outputs))
        self._put(request)
        answer = asyncio.wrap_future(request.offsets)
        await asyncio.wait([answer], timeout=self._timeout_s)
        if not answer.done():
            withdrawn = request.offsets.cancel()
            if withdrawn or not request.offsets.done():  # it may be done by now
                answer.cancel()
                text = f"it has not acknowledged the messages within {self._timeout_s:g} s"
                raise NotAcknowledged(text, maybe_written=not withdrawn)
        offsets = await answer
        return [Written(o.partition or 0, offset) for o, offset in zip(outputs, offsets, strict=True)]

    def close(self) -> None:
        """Refuse further requests; wait a second for those that wait to be written, after which the thread ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_TIMEOUT_S)

    def _put(self, request: _Request) -> None:
        with self._changed:
            if self._closed:
                raise NotAcknowledged("this service is being stopped", maybe_written=False)
            if self._waiting_bytes + request.size_bytes > self._max_waiting_bytes:
                text = f"{len(self._waiting)} requests wait to be written, which is all that fit"
                raise NotAcknowledged(text, maybe_written=False)
            self._waiting.append(request)
            self._waiting_bytes += request.size_bytes
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="record-producer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            requests = [request for request in batch if request.offsets.set_running_or_notify_cancel()]
            if requests:
                self._send(requests)

    def _next(self) -> list[_Request] | None:
        """Return all requests that wait, at least one; None = closed, and none waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return batch or None

    def _send(self, requests: Sequence[_Request]) -> None:
        try:
            offsets = self._producer.send([output for request in requests for output in request.outputs])
        except Exception as error:  # noqa: BLE001 - the requests must be answered, whatever it was
            self._fail(requests, error)
            return
        start = 0
        for request in requests:
            stop = start + len(request.outputs)
            request.offsets.set_result(offsets[start:stop])
            start = stop

    def _fail(self, requests: Sequence[_Request], error: Exception) -> None:
        if not isinstance(error, MindstreamError):
            _LOG.exception("the messages of %d requests were not written", len(requests))
        if isinstance(error, TransientError):
            error = NotAcknowledged(str(error).removeprefix("Kafka: "), maybe_written=True)
        for request in requests:
            request.offsets.set_exception(error)
