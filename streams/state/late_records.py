"""History records that are written again, because the recommendations sent with them may have been late.

A worker that is paused while it sends is a zombie when it continues. Kafka may have its history records from before the
pause, and write its recommendations after it, behind newer ones of the next owner: nothing in the changelog would show
the owner that. So the zombie writes the records again. The owner finds them behind newer ones, repairs that, and
answers the users again (`streams.state.restore`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.ports import Output, RecordProducer


class LateRecords:
    """A `RecordProducer` that sends history records twice if they took longer than a session allows. For one thread.

    Args:
        producer: sends.
        changelog: the topic of the records.
        limit_s: seconds, less than the session: within these, no other worker got the partitions.
        clock: seconds of a clock that runs on while the machine is suspended.
    """

    def __init__(self, producer: RecordProducer, changelog: str, limit_s: float, clock: Callable[[], float]) -> None:
        self._producer = producer
        self._changelog = changelog
        self._limit_s = limit_s
        self._clock = clock
        self._late: dict[tuple[int | None, bytes | None], Output] = {}

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        """See `streams.ports.RecordProducer.send`."""
        began = self._clock()
        try:
            offsets = self._producer.send(outputs, produced)
        finally:  # messages of a call that fails may be written, too
            if self._clock() - began > self._limit_s:
                self._late.update({(o.partition, o.key): o for o in outputs if o.topic == self._changelog})
        if self._late:
            self._producer.send(list(self._late.values()))
            self._late.clear()
        return offsets
