"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("paddle", reason="Paddle is not installed: pip install -e '.[cpu]'")

from model.training.signals import StopSignals


def test_signals_are_deferred_in_the_loop_and_interrupt_elsewhere() -> None:
    with StopSignals().installed() as stop:
        with stop.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # Paddle's launcher repeats it
            assert stop.status == 143
            stop.number = 0
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert stop.status == 130
            stop.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            stop.number = 0
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt), StopSignals().installed() as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)  # after the last check of `number`
