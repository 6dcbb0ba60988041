"""The worker's log: lines on standard error, with a limit on repetitive ones."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

_FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"
#: Loggers of Kafka clients, which report for each try that the broker is unavailable: 70 lines a second.
_REPETITIVE = ("aiokafka", "mindstream.kafka")
#: Seconds between two log lines of one kind from these loggers.
_INTERVAL_S = 10.0
#: Most kinds that are remembered, which bounds the memory.
_MAX_KINDS = 1000


class Repetitions(logging.Filter):
    """Passes one message of a kind every `interval_s` seconds, with the number of those suppressed in between.

    A kind is a logger, a text before its values are filled in, and the first value, which is a node or an error code.

    Args:
        interval_s: seconds between two messages of one kind.
        clock: monotonic seconds.
    """

    def __init__(self, interval_s: float = _INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._kinds: dict[tuple[str, object, object], tuple[float, int]] = {}  # kind → when logged, suppressed since

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_REPETITIVE):
            return True
        first = str(record.args[0]) if isinstance(record.args, tuple) and record.args else None
        kind = record.name, record.msg, first
        now = self._clock()
        logged_at, suppressed = self._kinds.get(kind, (-self._interval_s, 0))
        if now - logged_at < self._interval_s:
            self._kinds[kind] = logged_at, suppressed + 1
            return False
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        if suppressed:
            record.msg, record.args = f"{record.getMessage()} ({suppressed} more of this kind suppressed)", ()
        return True


def configure_logging(level: str) -> None:
    """Log messages of this level and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Repetitions())
    logging.basicConfig(level=level, format=_FORMAT, handlers=[handler])
