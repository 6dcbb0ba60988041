"""Live figures and events of the stream for all browsers: one thread that follows the topics while somebody listens."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from configs.errors import FatalError, TransientError
from configs.schema import Kafka
from streams.errors import BadMessage
from streams.kafka.client import metadata
from streams.kafka.offsets import TopicOffsets
from streams.kafka.reading import ReceivedMessage, follow
from streams.messages.clicks import decode_click
from streams.messages.recommendations import decode_recommendation
from streams.service.figures import Figures, StreamFigures

_LOG = logging.getLogger("mindstream.service")

#: Seconds without listeners after which the topics are not followed any more, and between two attempts to follow them.
IDLE_S, RETRY_S = 30.0, 5.0
#: Seconds between two reads of the workers' lag, and between two states.
LAG_INTERVAL_S, STATE_INTERVAL_S = 2.0, 0.5
#: Seconds that the thread gets to end.
_STOP_S = 1.0
#: Events that wait for one listener; further ones are dropped, and the browser reads the user again anyway.
_MAX_EVENTS = 32


class UserEvent(NamedTuple):
    """A click or a recommendation of one user. `latency_s` is that of the click that it is, or answers, if known."""

    kind: str
    user: str
    offset: int
    latency_s: float | None


class LiveState(NamedTuple):
    """State of the stream, as a browser shows it.

    Attributes:
        figures: of the stream; None = it is not followed yet.
        lag: messages that the click workers have not committed; None = unknown.
        fault: why the stream cannot be followed; "" = it can.
        known_at: monotonic seconds; the figures have all that Kafka had at this time.
    """

    figures: Figures | None
    lag: int | None
    fault: str
    known_at: float = 0.0


class Feed(Protocol):
    """The stream as one thread follows it. All methods raise TransientError when Kafka is unavailable."""

    def follow(self) -> Generator[ReceivedMessage | None]:
        """Yield clicks and recommendations as they arrive, and None whenever none arrives for some time."""
        ...

    def lag(self) -> int:
        """Return the number of clicks that the click workers have not committed."""
        ...

    def close(self) -> None:
        """Close the connection that `lag` uses."""
        ...


class KafkaFeed:
    """`Feed` from a cluster. For one thread.

    Args:
        kafka: the cluster.
        clicks, recommendations: names of the topics.
        group: consumer group of the click workers.
    """

    def __init__(self, kafka: Kafka, clicks: str, recommendations: str, group: str) -> None:
        self._kafka = kafka
        self._topics = [clicks, recommendations]
        self._offsets = TopicOffsets(kafka, clicks, group)
        self._partitions: Sequence[int] = ()

    def follow(self) -> Generator[ReceivedMessage | None]:
        """See `Feed.follow`."""
        clicks, found = self._topics[0], metadata(self._kafka).topics
        if clicks not in found:
            raise TransientError("Kafka", f"there is no topic {clicks} now, or no right to it")
        self._partitions = sorted(found[clicks].partitions)
        return follow(self._kafka, self._topics)

    def lag(self) -> int:
        """See `Feed.lag`."""
        committed, ends = self._offsets.committed(self._partitions), self._offsets.end_offsets(self._partitions)
        begins = self._offsets.beginning_offsets([p for p, offset in committed.items() if offset is None])
        return sum(max(0, end - begins.get(p, committed[p] or 0)) for p, end in ends.items())

    def close(self) -> None:
        """See `Feed.close`."""
        self._offsets.renew()


@dataclass(eq=False)
class Listener:
    """One browser.

    Attributes:
        user: the user whose events it gets; None = none.
        loop: calls `offer`.
        events: those that wait.
    """

    user: str | None
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[UserEvent] = field(default_factory=lambda: asyncio.Queue(_MAX_EVENTS))

    def offer(self, event: UserEvent) -> None:
        """Add an event, or drop it if too many wait. Called in the event loop."""
        if not self.events.full():
            self.events.put_nowait(event)


class LiveStream:
    """Follows the stream for all listeners together, and not at all while there is none.

    Args:
        feed: builds the connection; called in the thread that follows.
        clicks: name of the topic of the clicks; all other messages are recommendations.
        popular: item ids, the most clicked in training first.
        max_listeners: browsers at a time.
        stopping: set when the process has to end.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        feed: Callable[[], Feed],
        clicks: str,
        popular: Sequence[int],
        max_listeners: int,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed = feed
        self._clicks = clicks
        self._popular = popular
        self._max_listeners = max_listeners
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._last_listened = clock()
        self._thread: threading.Thread | None = None
        self._stopping = stopping
        self._state = LiveState(None, None, "")

    @property
    def state(self) -> LiveState:
        """The newest state; while Kafka does not answer, it does not change for as long as a request may take."""
        return self._state

    def age_s(self, state: LiveState) -> float | None:
        """Return how many seconds ago Kafka had what the figures of a state show; None without figures."""
        return None if state.figures is None else self._clock() - state.known_at

    @property
    def is_full(self) -> bool:
        """True if as many browsers listen as may."""
        return len(self._listeners) >= self._max_listeners

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @asynccontextmanager
    async def listen(self, user: str | None) -> AsyncIterator[Listener]:
        """Listen in a block; ask `is_full` before."""
        listener = Listener(user, asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="live", daemon=True)
                self._thread.start()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)
                self._last_listened = self._clock()

    def stop(self) -> None:
        """Stop following, for good. A thread that waits for Kafka is left behind."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(_STOP_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_wanted():
                    self._thread = None  # the next listener starts another one
                    self._state = LiveState(None, None, "")
                    return
            try:
                feed = self._feed()
                with closing(feed), closing(feed.follow()) as messages:
                    self._follow(feed, messages)
            except Exception as error:  # noqa: BLE001 - a defect must not leave the last figures on the page
                is_known = isinstance(error, TransientError | FatalError)
                _LOG.warning("the page shows no live figures: %s", error, exc_info=None if is_known else error)
                self._state = LiveState(None, None, str(error))
                self._stopping.wait(RETRY_S)

    def _is_wanted(self) -> bool:
        """Return whether somebody listens, or did so a short time ago. Called with the lock."""
        recently = self._clock() - self._last_listened < IDLE_S
        return not self._stopping.is_set() and (bool(self._listeners) or recently)

    def _follow(self, feed: Feed, messages: Generator[ReceivedMessage | None]) -> None:
        """Follow until no one has listened for some time.

        Raises:
            TransientError, FatalError: Kafka is unavailable at the start, or refuses.
        """
        received = next(messages)  # the partitions are assigned: from here on no message is missed
        figures = StreamFigures(self._popular, self._clock)
        lag, fault, known_at = None, "", self._clock()
        next_lag = next_state = known_at
        while True:
            if received is not None:
                self._add(figures, received)
                known_at = self._clock()
            if self._clock() >= next_lag:
                asked_at = self._clock()
                try:
                    lag, fault, known_at = feed.lag(), "", asked_at
                except (TransientError, FatalError) as error:  # an outage, during which the messages only pause
                    lag, fault = None, str(error)
                next_lag = self._clock() + LAG_INTERVAL_S
            if self._clock() >= next_state:
                next_state = self._clock() + STATE_INTERVAL_S
                self._state = LiveState(figures.snapshot(known_at), lag, fault, known_at)
                with self._lock:
                    if not self._is_wanted():
                        return
            received = next(messages)

    def _add(self, figures: StreamFigures, received: ReceivedMessage) -> None:
        message = received.message
        if message.key is None or message.value is None:
            return
        try:
            if message.topic == self._clicks:
                click = decode_click(message.key, message.value)
                latency = figures.add_click(message.key, message.partition, message.offset, click, received.timestamp)
                event = UserEvent("click", str(click.user_id), message.offset, latency)
            else:
                recommendation = decode_recommendation(message.value)
                latency = figures.add_recommendation(message.key, recommendation, received.timestamp)
                user, offset = str(recommendation.user_id), recommendation.source_offset
                event = UserEvent("recommendation", user, offset, latency)
        except BadMessage:
            return  # the worker makes a dead letter of it
        with self._lock:
            listeners = [listener for listener in self._listeners if listener.user == event.user]
        for listener in listeners:
            listener.loop.call_soon_threadsafe(listener.offer, event)
