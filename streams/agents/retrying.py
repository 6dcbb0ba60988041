"""Calls in the batch thread, retried until they succeed, are abandoned, or end the process.

`TransientError` is retried with growing waits; when the budget is used up, the process exits with status 75, without
commit, so that its supervisor restarts it. `RestartRequired` ends it with status 75 at once, `FatalError` with status
78, and so does `RefusedData` outside of a batch. Any other exception is a defect, for which the agent ends the process.
Calls that hang are detected by the watchdog (`streams.worker.watchdog`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from configs.errors import EXIT_TRANSIENT, FatalError, TransientError
from streams.agents.assignment import Assignment
from streams.errors import PartitionLost, RefusedData, RestartRequired
from streams.metrics import BatchMetrics

_LOG = logging.getLogger("mindstream.agent")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds between tries: `first_s`, doubled up to `longest_s`, with jitter; `budget_s` for all tries together."""

    first_s: float
    longest_s: float
    budget_s: float

    def waits(self, rng: random.Random) -> Iterator[float]:
        """Yield the waits in seconds, without end. Half of each is random, so that workers do not retry all at once."""
        wait = self.first_s
        while True:
            yield wait * rng.uniform(0.5, 1.0)
            wait = min(self.longest_s, 2 * wait)


@dataclass(slots=True)
class Call:
    """The current call of the batch thread.

    Attributes:
        name: human-readable name.
        started_at: monotonic time at which it began, in seconds.
        failing: at least one try has failed.
    """

    name: str
    started_at: float
    failing: bool = False


class Retrier:
    """Runs calls one at a time in a thread of its own. For the event loop.

    Args:
        policy: waits between tries.
        assignment: a call is abandoned when its partitions are revoked.
        metrics: counters.
        exit_process: ends the process with a status.
        thread_name: name of the thread.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        assignment: Assignment,
        metrics: BatchMetrics,
        exit_process: Callable[[int], Any],
        thread_name: str,
    ) -> None:
        self.call: Call | None = None
        self._policy = policy
        self._assignment = assignment
        self._metrics = metrics
        self._exit = exit_process
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)

    async def run(
        self, function: Callable[[], object], name: str, renew_lease: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Call a function until it succeeds.

        Args:
            function: the function to call, again after each transient error.
            name: human-readable name of the call.
            renew_lease: called before each try while the lease is not valid; None = the call needs no lease.

        Returns:
            True if the call succeeded; False if the partitions were revoked meanwhile, even if they have been assigned
            again since: their messages are read again, and the offsets of the old ones must not be committed.
        """
        generation = self._assignment.begin_call()
        self.call = Call(name, time.monotonic())
        waits = self._policy.waits(random.Random())
        try:
            while True:
                try:
                    if renew_lease is not None and not self._assignment.leased():
                        await renew_lease()
                        if self._assignment.revoked or generation != self._assignment.generation:
                            return False
                    await asyncio.get_running_loop().run_in_executor(self._thread, function)
                    return generation == self._assignment.generation
                except TransientError as error:
                    if not await self._retry(error, self.call, next(waits), generation):
                        return False
                except PartitionLost as error:
                    if generation == self._assignment.generation and not self._assignment.revoked:
                        raise  # a defect: only the agent releases partitions
                    _LOG.warning("%s; abandoned %s", error, name)
                    return False
                except (RestartRequired, RefusedData, FatalError) as error:
                    self.exit_on(error)
                    return False
        finally:
            self.call = None

    def exit_on(self, error: RestartRequired | RefusedData | FatalError) -> None:
        """Exit without commit, because this process cannot continue."""
        _LOG.critical("%s; exiting without commit", error)
        self._exit(error.exit_status)

    def close(self) -> None:
        """Start no further call. Does not wait for one that is running."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _retry(self, error: TransientError, call: Call, wait_s: float, generation: int | None) -> bool:
        """Wait until the next try is due; return False if there must not be one."""
        self._metrics.retries.inc()
        call.failing = True
        tried_s = time.monotonic() - call.started_at
        if tried_s > self._policy.budget_s:
            _LOG.critical("%s; retried for %.0f s, exiting without commit", error, tried_s)
            self._exit(EXIT_TRANSIENT)
            return False
        _LOG.warning("%s; %s is retried in %.1f s", error, call.name, wait_s)
        # The partitions may have been assigned again meanwhile: then these messages are read again, too.
        if await self._assignment.revoked_within(wait_s) or generation != self._assignment.generation:
            _LOG.warning("abandoned %s; the next owner of the partitions repeats it", call.name)
            return False
        return True
