"""Runs the Faust apps of one worker process: signals, shutdown, exit status."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection

import faust
from threadpoolctl import threadpool_limits

from configs.errors import EXIT_DEFECT
from configs.schema import WorkerConfig
from streams.worker.build import Process, build

_LOG = logging.getLogger("mindstream.worker")

#: Seconds that leaving may take: a supervisor that waits longer than 5 s never has to kill.
_LEAVE_WITHIN = 4.0
#: Objects made and not given back before Python looks for cycles among them; its default is 700.
_YOUNG = 50_000
#: Seconds between two beats of the event loop.
_BEAT = 1.0


class _Worker(faust.Worker):
    """Faust's worker, which leaves in time.

    Faust and aiokafka wait for the broker in several places of their shutdown, in one of them for ever. So the agents
    are stopped first, both at once: afterwards nothing is left to lose, and the rest may take what is left of the time.

    Signals are taken by a thread: asyncio handles them in the event loop, and Python between two instructions of the
    main thread, and either may hang. The interpreter itself writes their number into a socket.
    """

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(*process.apps, loop=loop, quiet=True, override_logging=False)
        self.spinner = None  # it writes to standard output
        self._process = process
        self._signals = socket.socketpair()

    async def on_first_start(self) -> None:
        await super().on_first_start()
        self.add_future(self._beat())

    async def _beat(self) -> None:
        while True:
            self._process.loop_monitor.tick()
            await asyncio.sleep(_BEAT)

    def install_signal_handlers(self) -> None:
        inbox, outbox = self._signals
        outbox.setblocking(False)
        signal.set_wakeup_fd(outbox.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._await_signal, args=(inbox,), name="signals", daemon=True).start()

    def _await_signal(self, inbox: socket.socket) -> None:
        number = signal.Signals(inbox.recv(1)[0])
        self._leave_in_time()
        _LOG.info("%s: stopping", number.name)
        self.loop.call_soon_threadsafe(self._schedule_shutdown, number)

    async def _stop_on_signal(self, signal: signal.Signals) -> None:
        await asyncio.gather(*(app.batches.stop() for app in self._process.apps), return_exceptions=True)
        await super()._stop_on_signal(signal)

    def on_worker_shutdown(self) -> None:
        if self._signal_stop_time is None:  # a service has crashed
            self._leave_in_time()

    def _leave_in_time(self) -> None:
        threading.Thread(target=self._leave_late, name="deadline", daemon=True).start()

    def _leave_late(self) -> None:
        time.sleep(_LEAVE_WITHIN)
        # Whether the group is told or finds out after the session time-out, the same offsets are committed.
        status = 0 if all(app.batches.stopped for app in self._process.apps) and not self.crashed else EXIT_DEFECT
        last_words = threading.Timer(0.2, os._exit, (status,))  # the log may be what hangs
        last_words.daemon = True
        last_words.start()
        if status == 0:
            _LOG.warning("left without a farewell to Kafka, which does not answer")
        else:
            _LOG.critical("could not stop within %.1f s; the stacks of all threads follow", _LEAVE_WITHIN)
            faulthandler.dump_traceback(sys.__stderr__ or 2)
        os._exit(status)

    async def _sentinel_task(self) -> None:
        """Faust would sleep for a second at the end."""


def run(config: WorkerConfig, agents: Collection[str]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status.

    Raises:
        FatalError, TransientError: as `streams.worker.build.build`.
    """
    # Faust logs every step of a rebalance as a table; what an operator needs is logged here.
    for chatty in (
        "faust",
        "aiokafka",
        "mode",
        "streams.agents.consumer",
    ):  # the last one: what Faust says of its subclasses
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # A batch's matrices are too small for a second thread to help, and BLAS' threads spin between them.
    threadpool_limits(1, user_api="blas")
    process = build(config, agents)
    # A batch makes thousands of objects and gives them back by itself. Looking through them for cycles, and through all
    # that has been loaded, took a sixth of its time.
    gc.freeze()
    gc.set_threshold(_YOUNG)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(process, loop)
    process.watchdog.start()
    try:
        worker.execute_from_commandline()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    except Exception:  # noqa: BLE001 - whatever made Faust's services crash
        _LOG.exception("a service crashed")
        status = EXIT_DEFECT
    _LOG.info("left")
    return status if status in (0, EXIT_DEFECT) else EXIT_DEFECT
