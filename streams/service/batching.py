"""Requests that arrive together share one call, without a fixed wait.

While calls run, what arrives is collected; the next call takes all of it. A single request on an idle service starts
its call at once. Two calls run at the same time, so that one is prepared and answered while Milvus searches for the
other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs.errors import FatalError, TransientError
from streams.metrics import ServiceMetrics
from streams.service.problems import unavailable

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


#: Calls that run at the same time.
_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[Asked, Answer]):
    users: Sequence[Asked]
    kind: Hashable
    answers: asyncio.Future[Sequence[Answer]]


class SharedCalls(Generic[Asked, Answer]):
    """Answers users in calls that requests share. For one event loop; the calls run in a few threads.

    Args:
        call: answers users, in their order; thread-safe.
        batch_users: most users in a call; a request may not have more.
        queue_users: most users that wait.
        timeout_s: seconds that a request waits at most.
        metrics: gauges of queue and batches.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Asked]], Sequence[Answer]],
        *,
        batch_users: int,
        queue_users: int,
        timeout_s: float,
        metrics: ServiceMetrics,
    ) -> None:
        self._call = call
        self._batch_users = batch_users
        self._queue_users = queue_users
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._queue: deque[_Waiting[Asked, Answer]] = deque()
        self._waiting_users = 0
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps weak references only
        self._threads = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="recall")

    async def answer(self, users: Sequence[Asked], kind: Hashable = None) -> Sequence[Answer]:
        """Return the answers to the users of one request.

        Args:
            users: at most `batch_users`.
            kind: only requests of one kind share a call.

        Raises:
            Problem: too many users wait, or the answer took too long (503).
            Exception: what the call raised for these users.
        """
        self._check_room(len(users))
        waiting = _Waiting(users, kind, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._count(len(users))
        if self._in_flight < _IN_FLIGHT:
            self._in_flight += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await self._in_time(waiting.answers)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Call a thread-safe function in one of the threads, with the same bounds.

        Raises:
            Problem: too many users wait, or the result took too long (503).
            Exception: what the function raised.
        """
        self._check_room(1)
        self._count(1)
        try:
            return await self._in_time(self._run(function))
        finally:
            self._count(-1)

    def _check_room(self, users: int) -> None:
        if self._waiting_users + users > self._queue_users:
            raise unavailable("too many requests wait for a search; try again, or start more services")

    async def _in_time(self, result: asyncio.Future[Result]) -> Result:
        try:
            return await asyncio.wait_for(result, self._timeout_s)  # which cancels it
        except asyncio.TimeoutError:
            detail = f"no answer within {self._timeout_s:.0f} s (service.timeout); try again"
            raise unavailable(detail) from None

    def _run(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _drain(self) -> None:
        try:
            while self._queue:
                await asyncio.sleep(0)  # the requests that have arrived meanwhile get into the queue
                batch = self._take()
                if batch:
                    self._metrics.batch_users.observe(sum(len(waiting.users) for waiting in batch))
                    await self._answer(batch)
        finally:
            self._in_flight -= 1

    def _take(self) -> list[_Waiting[Asked, Answer]]:
        """Remove the first request from the queue, and others of its kind that fit; drop those that were given up."""
        batch: list[_Waiting[Asked, Answer]] = []
        rest: deque[_Waiting[Asked, Answer]] = deque()
        free = self._batch_users
        for waiting in self._queue:
            if waiting.answers.done():
                self._count(-len(waiting.users))
            elif (not batch or waiting.kind == batch[0].kind) and len(waiting.users) <= free:
                batch.append(waiting)
                free -= len(waiting.users)
                self._count(-len(waiting.users))
            else:
                rest.append(waiting)
        self._queue = rest
        return batch

    async def _answer(self, batch: Sequence[_Waiting[Asked, Answer]]) -> None:
        """Answer a batch in one call. Where the call fails because of what one asked for, the batch is divided."""
        users = [user for waiting in batch for user in waiting.users]
        try:
            answers = await self._run(lambda: self._call(users))
        except (TransientError, FatalError) as error:  # a server: not because of one of them
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001 - a refusal, or a defect that other requests must not suffer from
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                middle = len(batch) // 2
                await self._answer(batch[:middle])
                await self._answer(batch[middle:])
        else:
            begin = 0
            for waiting in batch:
                end = begin + len(waiting.users)
                if not waiting.answers.done():  # given up meanwhile
                    waiting.answers.set_result(answers[begin:end])
                begin = end

    @staticmethod
    def _fail(batch: Sequence[_Waiting[Asked, Answer]], error: Exception) -> None:
        for waiting in batch:
            if not waiting.answers.done():
                waiting.answers.set_exception(error)

    def _count(self, users: int) -> None:
        self._waiting_users += users
        self._metrics.queue_users.set(self._waiting_users)
