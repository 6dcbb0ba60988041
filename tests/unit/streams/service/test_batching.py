"""Calls that requests share: what is collected, bounds, faults, cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from configs.errors import FatalError, TransientError
from streams.errors import RefusedData
from streams.metrics import ServiceMetrics
from streams.service.batching import SharedCalls
from streams.service.problems import Problem


class Call:
    """Answers a user with its double when it is released; "refused" and "down" in a batch make it fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.released = threading.Semaphore(0)
        self.errors: dict[int, Exception] = {}

    def __call__(self, users: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(users))
        self.entered.release()
        assert self.released.acquire(timeout=10)
        for user in users:
            if user in self.errors:
                raise self.errors[user]
        return [2 * user for user in users]

    async def is_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=10)


def _double(users: Sequence[int]) -> Sequence[int]:
    return [2 * user for user in users]


def _shared(call: Call, batch: int = 4, queue: int = 8, timeout_s: float = 10.0) -> SharedCalls[int, int]:
    metrics = ServiceMetrics(CollectorRegistry())
    return SharedCalls(call, batch_users=batch, queue_users=queue, timeout_s=timeout_s, metrics=metrics)


def test_what_arrives_while_a_call_runs_shares_the_next_one() -> None:
    async def scenario() -> None:
        call = Call()
        shared = _shared(call)
        first = asyncio.create_task(shared.answer([1]))
        await call.is_entered()
        later = [asyncio.create_task(shared.answer(users)) for users in ([2, 3], [4], [5, 6], [7])]
        await asyncio.sleep(0)
        call.released.release(3)
        assert await first == [2]
        assert await asyncio.gather(*later) == [[4, 6], [8], [10, 12], [14]]
        assert call.batches == [[1], [2, 3, 4, 7], [5, 6]], "a request is not divided"

    asyncio.run(scenario())


def test_two_calls_run_at_the_same_time_and_what_arrives_meanwhile_shares_the_third() -> None:
    async def scenario() -> None:
        call = Call()
        shared = _shared(call)
        running = []
        for user in (1, 2):
            running.append(asyncio.create_task(shared.answer([user])))
            await call.is_entered()
        later = [asyncio.create_task(shared.answer([user])) for user in (3, 4)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert call.batches == [[1], [2]]
        call.released.release(3)
        assert await asyncio.gather(*running, *later) == [[2], [4], [6], [8]]
        assert call.batches[2] == [3, 4]

    asyncio.run(scenario())


def test_no_request_is_left_in_the_queue_when_calls_end() -> None:
    async def ask(shared: SharedCalls[int, int], client: int) -> None:
        for number in range(200):
            user = 1000 * client + number
            assert await shared.answer([user]) == [2 * user]

    async def scenario() -> None:
        metrics = ServiceMetrics(CollectorRegistry())
        shared: SharedCalls[int, int] = SharedCalls(
            _double, batch_users=4, queue_users=8, timeout_s=5.0, metrics=metrics
        )
        await asyncio.gather(*(ask(shared, client) for client in range(5)))

    asyncio.run(scenario())


def test_requests_of_another_kind_have_calls_of_their_own() -> None:
    async def scenario() -> None:
        call = Call()
        shared = _shared(call)
        call.released.release(3)
        asked = [([1], "a"), ([2], "b"), ([3], "a")]
        await asyncio.gather(*(shared.answer(users, kind) for users, kind in asked))
        assert call.batches == [[1, 3], [2]]

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once_and_has_room_again_later() -> None:
    async def scenario() -> None:
        call = Call()
        shared = _shared(call, batch=4, queue=4)
        first = asyncio.create_task(shared.answer([1]))
        await call.is_entered()
        waiting = asyncio.create_task(shared.answer([2, 3, 4]))
        await asyncio.sleep(0)
        with pytest.raises(Problem) as caught:
            await shared.answer([5, 6])
        assert (caught.value.status_code, dict(caught.value.headers or {})) == (503, {"Retry-After": "1"})
        call.released.release(3)
        await asyncio.gather(first, waiting)
        assert await shared.answer([5, 6]) == [10, 12]

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["queued", "running"])
def test_a_client_that_leaves_disturbs_no_other(when: str) -> None:
    async def scenario() -> None:
        call = Call()
        shared = _shared(call)
        if when == "queued":
            blocker = asyncio.create_task(shared.answer([9]))
            await call.is_entered()
        leaving, staying = asyncio.create_task(shared.answer([1])), asyncio.create_task(shared.answer([2]))
        if when == "running":
            await call.is_entered()
        else:
            await asyncio.sleep(0)
        leaving.cancel()
        call.released.release(3)
        assert await staying == [4]
        if when == "queued":
            await blocker
        assert call.batches == ([[9], [2]] if when == "queued" else [[1, 2]])
        assert leaving.cancelled()
        assert await shared.answer([3]) == [6], "the queue counts no user that has left"

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [TransientError("Milvus", "down"), FatalError("wrong token")])
def test_a_fault_of_a_server_fails_exactly_the_requests_of_the_call(error: Exception) -> None:
    async def scenario() -> None:
        call = Call()
        call.errors[2] = error
        shared = _shared(call)
        first = asyncio.create_task(shared.answer([9]))
        await call.is_entered()
        failing = [asyncio.create_task(shared.answer([user])) for user in (1, 2)]
        later = asyncio.create_task(shared.answer([3, 4, 5]))
        await asyncio.sleep(0)
        call.released.release(3)
        assert await asyncio.gather(*failing, return_exceptions=True) == [error, error]
        assert (await first, await later) == ([18], [6, 8, 10])
        assert call.batches == [[9], [1, 2], [3, 4, 5]], "it is not tried again"

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [RefusedData("Milvus", "id"), ZeroDivisionError("a defect")])
def test_refused_data_fails_only_the_request_that_has_it(error: Exception) -> None:
    async def scenario() -> None:
        call = Call()
        call.errors[2] = error
        shared = _shared(call)
        call.released.release(10)
        answers = await asyncio.gather(*(shared.answer([user]) for user in (1, 2, 3, 4)), return_exceptions=True)
        assert answers == [[2], error, [6], [8]]

    asyncio.run(scenario())


def test_a_request_waits_no_longer_than_the_timeout() -> None:
    async def scenario() -> None:
        call = Call()
        shared = _shared(call, timeout_s=0.05)
        with pytest.raises(Problem, match=r"service\.timeout"):
            await shared.answer([1])
        call.released.release(2)
        assert await shared.answer([2]) == [4]

    asyncio.run(scenario())
