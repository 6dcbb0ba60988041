"""Calls in threads: bounded in number and time, and independent of those of other systems."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streams.service.problems import Problem
from streams.service.threads import ThreadCalls


def test_the_result_and_the_error_of_a_call_are_those_of_the_function() -> None:
    calls = ThreadCalls("test", 1, 10, 20)
    assert asyncio.run(calls.call(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(calls.call(lambda: 1 // 0))


def test_a_call_that_takes_too_long_is_given_up_and_withdrawn_if_it_has_not_begun() -> None:
    calls, release, begun = ThreadCalls("test", 1, 10, 0.05), threading.Event(), []

    async def scenario() -> None:
        first = asyncio.create_task(calls.call(release.wait))
        second = asyncio.create_task(calls.call(lambda: begun.append(2)))
        for task in (first, second):
            with pytest.raises(Problem, match="no answer within"):
                await task
        release.set()
        assert await calls.call(lambda: 7, 20) == 7

    asyncio.run(scenario())
    assert begun == []


def test_more_calls_than_there_is_room_for_are_refused_at_once() -> None:
    calls, release = ThreadCalls("test", 1, 2, 20), threading.Event()

    async def scenario() -> None:
        waiting = [asyncio.create_task(calls.call(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="too many requests wait"):
            await calls.call(lambda: 7)
        release.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await calls.call(lambda: 7) == 7

    asyncio.run(scenario())
