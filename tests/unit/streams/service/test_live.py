"""The live figures: one follower for all browsers, and none without one."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Generator

import pytest

from configs.errors import TransientError
from streams.kafka.reading import ReceivedMessage
from streams.messages.clicks import Click, encode_click
from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.ports import Message
from streams.service import live
from streams.service.live import LiveStream, UserEvent


class _Feed:
    """A stream that a test writes to."""

    def __init__(self) -> None:
        self.messages: list[ReceivedMessage] = []
        self.failures = 0
        self.lag_fails = False
        self.answers = threading.Event()
        self.answers.set()
        self.follows = 0
        self.closed = 0

    def __call__(self) -> _Feed:
        return self

    def follow(self) -> Generator[ReceivedMessage | None]:
        if self.failures:
            self.failures -= 1
            raise TransientError("Kafka", "unavailable, for the test")
        self.follows += 1
        for position in itertools.count():
            while position >= len(self.messages):
                time.sleep(0.001)
                yield None
            yield self.messages[position]

    def lag(self) -> int:
        self.answers.wait()
        if self.lag_fails:
            raise TransientError("Kafka", "unavailable, for the test")
        return 42

    def close(self) -> None:
        self.closed += 1

    def click(self, user: str, offset: int) -> None:
        value = encode_click(Click(user, 5, 2e8))
        self.messages.append(ReceivedMessage(Message("clicks", 0, offset, user.encode(), value), {}, 2e8))

    def answer(self, user: str, offset: int) -> None:
        value = encode_recommendation(Recommendation(user, [5], [1.0], [0], "m1", 1, 0, offset, 2e8, 2e8))
        message = Message("recommendations", 0, offset, user.encode(), value)
        self.messages.append(ReceivedMessage(message, {}, 2e8 + 0.25))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE_S", "RETRY_S", "LAG_INTERVAL_S", "STATE_INTERVAL_S"):
        monkeypatch.setattr(live, name, 0.01)


def _stream(feed: _Feed, listeners: int = 4) -> LiveStream:
    return LiveStream(feed, "clicks", [], listeners, threading.Event())


def _run(scenario: Callable[[LiveStream], Awaitable[None]], feed: _Feed) -> None:
    async def whole() -> None:
        stream = _stream(feed)
        try:
            await asyncio.wait_for(scenario(stream), 20)
        finally:
            await asyncio.to_thread(stream.stop)

    asyncio.run(whole())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another thread changes what it reads
        await asyncio.sleep(0.002)


def test_a_listener_gets_the_events_of_its_user_only() -> None:
    feed = _Feed()

    async def scenario(stream: LiveStream) -> None:
        async with stream.listen("anna") as anna, stream.listen(None) as other:
            await _until(lambda: stream.state.figures is not None)
            feed.click("bob", 0)
            feed.click("anna", 1)
            feed.answer("anna", 1)
            assert await anna.events.get() == UserEvent("click", "anna", 1, None)
            assert await anna.events.get() == UserEvent("recommendation", "anna", 1, 0.25)
            assert other.events.empty()
            await _until(lambda: stream.state.figures is not None and stream.state.figures.active[:1] == ["anna"])
            assert stream.state.lag == 42 and stream.state.fault == ""
        assert feed.follows == 1, "one thread for both"

    _run(scenario, feed)


def test_the_stream_is_not_followed_without_listeners() -> None:
    feed = _Feed()

    async def scenario(stream: LiveStream) -> None:
        assert feed.follows == 0
        for times in (1, 2):
            async with stream.listen(None):
                await _until(lambda: stream.state.figures is not None)
            await _until(lambda: stream._thread is None)
            assert stream.state.figures is None, "figures of a stream that is not followed are not shown"
            assert (feed.follows, feed.closed) == (times, times)

    _run(scenario, feed)


def test_an_outage_is_shown_and_ends_by_itself() -> None:
    feed = _Feed()
    feed.failures = 2

    async def scenario(stream: LiveStream) -> None:
        async with stream.listen(None):
            await _until(lambda: "unavailable" in stream.state.fault)
            assert stream.state.figures is None
            await _until(lambda: stream.state.figures is not None)
            feed.lag_fails = True
            await _until(lambda: "unavailable" in stream.state.fault)
            assert stream.state.lag is None
            feed.lag_fails = False
            await _until(lambda: stream.state.fault == "")

    _run(scenario, feed)


def test_figures_age_while_kafka_hangs() -> None:
    feed = _Feed()

    async def scenario(stream: LiveStream) -> None:
        assert stream.age_s(stream.state) is None, "there are no figures yet"
        async with stream.listen(None):
            await _until(lambda: stream.state.figures is not None and stream.state.lag == 42)
            feed.answers.clear()
            await _until(lambda: (stream.age_s(stream.state) or 0) > 0.3)
            assert stream.state.figures is not None and stream.state.fault == "", "the request has not failed yet"
            feed.answers.set()
            await _until(lambda: (stream.age_s(stream.state) or 0) < 0.2)
            feed.lag_fails = True
            await _until(lambda: (stream.age_s(stream.state) or 0) > 0.3)
            feed.click("anna", 0)
            await _until(lambda: (stream.age_s(stream.state) or 0) < 0.2)

    _run(scenario, feed)


def test_messages_that_cannot_be_read_are_skipped() -> None:
    feed = _Feed()

    async def scenario(stream: LiveStream) -> None:
        async with stream.listen("anna") as anna:
            await _until(lambda: stream.state.figures is not None)
            for topic, key, value in (
                ("clicks", b"anna", b"{"),
                ("clicks", None, b"{}"),
                ("recommendations", b"anna", b"1"),
            ):
                feed.messages.append(ReceivedMessage(Message(topic, 0, 0, key, value), {}, 0.0))
            feed.click("anna", 7)
            assert (await anna.events.get()).offset == 7

    _run(scenario, feed)


def test_a_slow_browser_loses_events_and_the_service_no_memory() -> None:
    feed = _Feed()

    async def scenario(stream: LiveStream) -> None:
        async with stream.listen("anna") as anna:
            await _until(lambda: stream.state.figures is not None)
            for offset in range(500):
                feed.click("anna", offset)
            await _until(anna.events.full)
            feed.click("bob", 0)
            await _until(lambda: stream.state.figures is not None and stream.state.figures.active[:1] == ["bob"])
            assert anna.events.qsize() == live._MAX_EVENTS

    _run(scenario, feed)


def test_the_number_of_listeners_is_limited() -> None:
    async def scenario() -> None:
        stream = _stream(_Feed(), listeners=1)
        assert not stream.is_full
        async with stream.listen(None):
            assert stream.is_full
        assert not stream.is_full
        await asyncio.to_thread(stream.stop)
        assert stream.is_stopping

    asyncio.run(scenario())


def test_stopping_ends_the_thread() -> None:
    async def scenario() -> None:
        stream = _stream(_Feed())
        async with stream.listen(None):
            await _until(lambda: stream.state.figures is not None)
            await asyncio.to_thread(stream.stop)
            assert not any(thread.name == "live" for thread in threading.enumerate())

    asyncio.run(scenario())
