"""Requests that share a producer: batches of what arrived together, bounds on time and memory, honest failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from configs.errors import FatalError, TransientError
from streams.ports import Output
from streams.service.shared_producer import NotAcknowledged, SharedProducer, Written


class HeldProducer:
    """Waits in each call until it is released, and then fails if `error` is set."""

    def __init__(self) -> None:
        self.batches: list[list[bytes | None]] = []
        self.error: Exception | None = None
        self.entered = threading.Semaphore(0)
        self.released = threading.Semaphore(0)
        self._offset = 0

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        self.batches.append([output.key for output in outputs])
        self.entered.release()
        assert self.released.acquire(timeout=20)
        produced()
        if self.error is not None:
            raise self.error
        first, self._offset = self._offset, self._offset + len(outputs)
        return range(first, self._offset)


@pytest.fixture
def held() -> Iterator[HeldProducer]:
    producer = HeldProducer()
    yield producer
    for _ in range(100):
        producer.released.release()


def _click(key: bytes, partition: int = 0) -> Output:
    return Output("clicks", key, b"{}", partition)


async def _entered(held: HeldProducer) -> None:
    assert await asyncio.to_thread(held.entered.acquire, timeout=20)


def test_requests_that_arrive_together_are_acknowledged_together(held: HeldProducer) -> None:
    async def scenario() -> None:
        shared = SharedProducer(held, 20)
        first = asyncio.create_task(shared.write([_click(b"a", 2)]))
        await _entered(held)
        rest = [asyncio.create_task(shared.write([_click(key), _click(key)])) for key in (b"b", b"c", b"d")]
        await asyncio.sleep(0)
        held.released.release(2)
        assert await first == [Written(2, 0)]
        assert await asyncio.gather(*rest) == [[Written(0, n), Written(0, n + 1)] for n in (1, 3, 5)]
        assert held.batches == [[b"a"], [b"b", b"b", b"c", b"c", b"d", b"d"]]
        shared.close()
        with pytest.raises(NotAcknowledged, match="being stopped"):
            await shared.write([_click(b"e")])

    asyncio.run(scenario())


def test_a_request_that_is_not_acknowledged_says_whether_it_may_have_been_written(held: HeldProducer) -> None:
    async def scenario() -> None:
        shared = SharedProducer(held, 0.05)
        begun = asyncio.create_task(shared.write([_click(b"begun")]))
        await _entered(held)
        waiting = asyncio.create_task(shared.write([_click(b"waiting")]))
        with pytest.raises(NotAcknowledged, match=r"within 0\.05 s; .* may or may not have been written") as first:
            await begun
        with pytest.raises(NotAcknowledged, match="nothing was written") as second:
            await waiting
        assert (first.value.maybe_written, second.value.maybe_written) == (True, False)
        held.released.release(2)
        assert await SharedProducer(held, 20).write([_click(b"other")])
        shared.close()

    asyncio.run(scenario())
    assert [b"waiting"] not in held.batches, "a request that was withdrawn is not written later"


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (TransientError("Kafka", "timed out"), NotAcknowledged, r"^Kafka: timed out; .* may or may not"),
        (FatalError("Kafka refuses"), FatalError, "^Kafka refuses$"),
        (ZeroDivisionError("a defect"), ZeroDivisionError, "a defect"),
    ],
)
def test_a_failure_reaches_all_requests_of_the_batch_and_no_other(
    held: HeldProducer, error: Exception, raised: type[Exception], text: str
) -> None:
    async def scenario() -> None:
        shared = SharedProducer(held, 20)
        held.error = error
        held.released.release()
        with pytest.raises(raised, match=text):
            await shared.write([_click(b"a")])
        held.error = None
        held.released.release()
        assert await shared.write([_click(b"b")]) == [Written(0, 0)]

    asyncio.run(scenario())


def test_what_waits_is_bounded(held: HeldProducer) -> None:
    async def scenario() -> None:
        shared = SharedProducer(held, 20, max_waiting_bytes=2000)
        begun = asyncio.create_task(shared.write([_click(b"a")]))
        await _entered(held)
        waiting = [asyncio.create_task(shared.write([_click(b"b")])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(NotAcknowledged, match=r"3 requests wait.*nothing was written"):
            await shared.write([_click(b"c")])
        held.released.release(2)
        await asyncio.gather(begun, *waiting)
        held.released.release()
        assert await shared.write([_click(b"d")])

    asyncio.run(scenario())
