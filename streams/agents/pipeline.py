"""Batches in the batch thread: the next one is started before the current one is finished.

While a batch is merged, packed and sent, the search of the next one is under way. The rules are in
`streams/DELIVERY.md`, *The pending batch*: it changes nothing, and is discarded unless the batch before it is finished.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

from configs.errors import TransientError
from streams.agents.batching import Batch
from streams.errors import PartitionLost
from streams.ports import BatchProcessor, Pending


@dataclass(slots=True, eq=False)
class Work(Generic[Pending]):
    """A batch on its way through the batch thread.

    Attributes:
        batch: its messages.
        pending: the started batch; None = it was not started yet, or was discarded.
    """

    batch: Batch
    pending: Pending | None = None


def without_pending(work: Work[Pending] | None) -> Work[Pending] | None:
    """Return the batch as one that was not started, because the batch before it was not finished."""
    return None if work is None else Work(work.batch)


class Pipeline(Generic[Pending]):
    """Takes batches through a processor in two calls, `search` and `finish`, either of which may be repeated.

    When a call fails, both batches count as not started. For the batch thread.
    """

    def __init__(self, processor: BatchProcessor[Pending]) -> None:
        self._processor = processor

    def search(self, work: Work[Pending], next_work: Work[Pending] | None) -> None:
        """Start a batch, unless it was started ahead, and the next one; wait until the first one can be finished.

        Raises:
            TransientError, PartitionLost: see `streams.ports.BatchProcessor`.
        """
        pending, work.pending = work.pending, None
        if pending is None:
            pending = self._processor.start(work.batch.messages, None)
        ahead = self._start_ahead(next_work, pending)
        pending.wait()
        work.pending = pending
        if next_work is not None:
            next_work.pending = ahead

    def finish(self, work: Work[Pending], next_work: Work[Pending] | None) -> None:
        """Start the next batch, unless `search` has, and finish this one. Raises the same errors as `search`."""
        pending, work.pending = work.pending, None
        ahead: Pending | None = None
        if next_work is not None:
            ahead, next_work.pending = next_work.pending, None
        if pending is None:
            pending, ahead = self._processor.start(work.batch.messages, None), None
        if ahead is None:
            ahead = self._start_ahead(next_work, pending)
        self._processor.finish(pending)
        if next_work is not None:
            next_work.pending = ahead

    def _start_ahead(self, next_work: Work[Pending] | None, pending: Pending) -> Pending | None:
        # Never across maintenance: nothing else that writes histories may come between a batch and one started ahead.
        if next_work is None or next_work.batch.maintain or not next_work.batch.messages:
            return None
        with suppress(TransientError, PartitionLost):  # they are reported when its own turn comes
            return self._processor.start(next_work.batch.messages, pending)
        return None
