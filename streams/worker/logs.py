"""What the worker logs, and where: lines on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

_FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"
#: Clients of Kafka, which say for each try that the broker is away: 70 lines a second.
_REPETITIVE = ("aiokafka", "mindstream.kafka")
#: Seconds in which a message of theirs is said once.
_EVERY = 10.0
#: Kinds that are remembered: bounds the memory.
_KINDS = 1000


class Repetitions(logging.Filter):
    """Lets messages of one kind through once in `every` seconds, with the number of those that it kept back meanwhile.

    A kind is a logger, a text before its values are filled in, and the first value: a node, or librdkafka's code.
    """

    def __init__(self, every: float = _EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every = every
        self._clock = clock
        self._kinds: dict[tuple[str, object, object], tuple[float, int]] = {}  # kind → when said, kept back since

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_REPETITIVE):
            return True
        first = str(record.args[0]) if isinstance(record.args, tuple) and record.args else None
        kind = record.name, record.msg, first
        now = self._clock()
        said, kept_back = self._kinds.get(kind, (-self._every, 0))
        if now - said < self._every:
            self._kinds[kind] = said, kept_back + 1
            return False
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        if kept_back:
            record.msg, record.args = f"{record.getMessage()} ({kept_back} more of this kind before)", ()
        return True


def configure(level: str) -> None:
    """Log to standard error, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Repetitions())
    logging.basicConfig(level=level, format=_FORMAT, handlers=[handler])
