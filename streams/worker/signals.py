"""SIGTERM and SIGINT, received in a thread of its own.

Python handles signals between two instructions of the main thread, and asyncio in its event loop; either may hang, in a
library that waits for a server. So the interpreter itself writes a signal's number into a socket, from which this
thread reads it. Imports only the standard library: it is installed before the rest is imported, which takes seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable


def on_stop_signal(react: Callable[[signal.Signals], object]) -> None:
    """Have the first SIGTERM or SIGINT call `react` in a thread of its own, instead of the reaction set before.

    For the main thread.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    threading.Thread(target=_await_signal, args=(reading, writing, react), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writing.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def exit_on_stop_signal() -> None:
    """Have SIGTERM and SIGINT end the process with status 0 at once: a start can be interrupted anywhere."""
    on_stop_signal(lambda _: os._exit(0))


def _await_signal(reading: socket.socket, writing: socket.socket, react: Callable[[signal.Signals], object]) -> None:
    react(signal.Signals(reading.recv(1)[0]))
    while True:  # keep both ends open: the interpreter writes further signals to the same number, whatever file has it
        reading.recv(1)
        writing.fileno()
