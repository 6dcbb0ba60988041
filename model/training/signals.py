"""Ctrl-C and SIGTERM, for a process that must save something before it exits."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StopSignals:
    """Within `installed`, the signals raise KeyboardInterrupt; within `deferred`, they only set `number`.

    Attributes:
        number: the last signal received; 0 = none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._deferred = False

    @property
    def status(self) -> int:
        """Exit status that a shell reports for a process that the signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Handle both signals, even if a shell started this process with them ignored."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals: the body must check `number`; only a second Ctrl-C interrupts it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.number:  # it arrived after the body's last check
            raise KeyboardInterrupt

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        again, self.number = self.number, number
        if number == signal.SIGTERM and again:
            return  # Paddle's launcher sends it three times
        if not self._deferred or again:
            raise KeyboardInterrupt
