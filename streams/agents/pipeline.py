"""Batches in the batch thread: the next one is started before the current one is finished.

While a batch is merged, packed and sent, the search of the next one is under way. The rules are in
`streams/DELIVERY.md`, *The pending batch*: it changes nothing, and is discarded unless the batch before it is finished.

A batch whose data a server refuses is divided, until the refused messages are single: each of them becomes a dead
letter, and the others are processed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

from configs.errors import TransientError
from streams.agents.batching import Batch
from streams.errors import PartitionLost, RefusedData
from streams.ports import BatchProcessor, Message, Pending

_LOG = logging.getLogger("mindstream.agent")


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
        try:
            if pending is None:
                pending = self._processor.start(work.batch.messages, None)
            ahead = self._start_ahead(next_work, pending)
            pending.wait()
        except RefusedData:
            return  # not started: `finish` starts it again, and divides it
        work.pending = pending
        if next_work is not None:
            next_work.pending = ahead

    def finish(self, work: Work[Pending], next_work: Work[Pending] | None) -> None:
        """Start the next batch, unless `search` has, and finish this one. Raises the same errors as `search`."""
        pending, work.pending = work.pending, None
        ahead: Pending | None = None
        if next_work is not None:
            ahead, next_work.pending = next_work.pending, None
        try:
            if pending is None:
                pending, ahead = self._processor.start(work.batch.messages, None), None
            if ahead is None:
                ahead = self._start_ahead(next_work, pending)
            self._processor.finish(pending)
        except RefusedData as error:
            self._divide(work.batch.messages, error)
            return  # the next batch was started on what this batch as a whole would have left
        if next_work is not None:
            next_work.pending = ahead

    def _divide(self, messages: Sequence[Message], error: RefusedData) -> None:
        """Process the two halves of a batch whose data was refused; a single message becomes a dead letter."""
        if len(messages) == 1:
            _LOG.warning("%s; %s/%d/%d becomes a dead letter", error, *messages[0][:3])
            self._processor.refuse(messages[0], error)
            return
        middle = len(messages) // 2
        for half in (messages[:middle], messages[middle:]):
            try:
                pending = self._processor.start(half, None)
                pending.wait()
                self._processor.finish(pending)
            except RefusedData as refused:
                self._divide(half, refused)

    def _start_ahead(self, next_work: Work[Pending] | None, pending: Pending) -> Pending | None:
        # Never across maintenance: nothing else that writes histories may come between a batch and one started ahead.
        if next_work is None or next_work.batch.maintain or not next_work.batch.messages:
            return None
        with suppress(TransientError, PartitionLost, RefusedData):  # they are reported when its own turn comes
            return self._processor.start(next_work.batch.messages, pending)
        return None
