"""Calls of requests that wait for something else, in threads, with a bound on their number and their time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streams.service.problems import unavailable

Result = TypeVar("Result")


class ThreadCalls:
    """Runs functions in a few threads, for one event loop. Each system has its own: none waits for a slow one.

    Args:
        name: of the threads.
        threads: number of calls at the same time.
        most: number of calls that run or wait, at most.
        timeout_s: seconds that a call may take, the wait for a thread included.
    """

    def __init__(self, name: str, threads: int, most: int, timeout_s: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = most
        self._timeout_s = timeout_s
        self._calls = 0

    async def call(self, function: Callable[[], Result], timeout_s: float | None = None) -> Result:
        """Return the function's result. A call that takes too long is withdrawn if it has not begun.

        Args:
            function: thread-safe.
            timeout_s: seconds instead of the usual ones.

        Raises:
            Problem: too many calls wait, or the result took too long (503).
            Exception: what the function raised.
        """
        if self._calls >= self._most:
            raise unavailable("too many requests wait; try again")
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        self._calls += 1
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._pool, function), limit_s)
        except asyncio.TimeoutError:
            raise unavailable(f"no answer within {limit_s:.0f} s; try again") from None
        finally:
            self._calls -= 1
