"""Runs the Faust apps of one worker process: signals, shutdown, exit status."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Collection

import faust
from threadpoolctl import threadpool_limits

from configs.schema import WorkerConfig
from streams.agents.crashes import crash_status
from streams.worker.build import Process, build
from streams.worker.parts import WorkerParts
from streams.worker.signals import on_stop_signal

_LOG = logging.getLogger("mindstream.worker")

#: Seconds that the shutdown may take: a supervisor that waits 5 s never has to kill the process.
_SHUTDOWN_S = 4.0
#: Allocated objects after which Python searches the youngest ones for cycles; its default is 700.
_GC_THRESHOLD = 50_000
#: Seconds between two ticks of the event loop's monitor.
_TICK_S = 1.0


class _Worker(faust.Worker):
    """Faust's worker with a shutdown that ends in time.

    Faust and aiokafka wait for the broker in several places of their shutdown, in one of them without a limit. So the
    agents are stopped first, both at the same time: afterwards nothing can be lost, and the rest of the shutdown gets
    the remaining time.
    """

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(*process.apps, loop=loop, quiet=True, override_logging=False)
        self.spinner = None  # it writes to standard output
        self._process = process

    async def on_first_start(self) -> None:
        await super().on_first_start()
        self.add_future(self._tick())

    async def _tick(self) -> None:
        while True:
            self._process.loop_monitor.tick()
            await asyncio.sleep(_TICK_S)

    def install_signal_handlers(self) -> None:
        on_stop_signal(self._on_stop_signal)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        self._limit_shutdown()
        _LOG.info("%s: stopping", number.name)
        self.loop.call_soon_threadsafe(self._schedule_shutdown, number)

    async def _stop_on_signal(self, signal: signal.Signals) -> None:
        await asyncio.gather(*(app.batch_agent.stop() for app in self._process.apps), return_exceptions=True)
        await super()._stop_on_signal(signal)

    def on_worker_shutdown(self) -> None:
        if self._signal_stop_time is None:  # a service has crashed
            self._limit_shutdown()

    def _limit_shutdown(self) -> None:
        threading.Thread(target=self._exit_late, name="deadline", daemon=True).start()

    def _exit_late(self) -> None:
        time.sleep(_SHUTDOWN_S)
        status = self.exit_status()
        log_deadline = threading.Timer(0.2, os._exit, (status,))  # the log may be what hangs
        log_deadline.daemon = True
        log_deadline.start()
        if status == 0:
            _LOG.warning("exited without leaving the consumer group: Kafka did not respond")
        else:
            _LOG.critical("could not stop within %.1f s; the stacks of all threads follow", _SHUTDOWN_S)
            faulthandler.dump_traceback(sys.__stderr__ or 2)
        os._exit(status)

    def exit_status(self) -> int:
        """Return the exit status of the process when its services have ended, or will not end in time."""
        if self._signal_stop_time is not None and all(app.batch_agent.stopped for app in self._process.apps):
            # As requested, whatever happened to the services meanwhile. Whether this member leaves the group or its
            # session times out, the same offsets are committed.
            return 0
        starting = self._starting_fut
        failed = starting is not None and starting.done() and not starting.cancelled()
        return crash_status(self.crash_reason or (starting.exception() if starting is not None and failed else None))

    async def _sentinel_task(self) -> None:
        """Do nothing: Faust's would sleep for a second at the end."""


def run(config: WorkerConfig, agents: Collection[str], parts: WorkerParts = WorkerParts()) -> int:  # noqa: B008 - immutable
    """Run until SIGTERM or SIGINT, and return the exit status.

    Args:
        config: the worker's configuration.
        agents: names from `streams.worker.build.AGENTS`.
        parts: classes of the replaceable parts.

    Raises:
        FatalError, TransientError: as `streams.worker.build.build`.
    """
    # Faust logs every step of a rebalance as a table; this project logs what an operator needs. Faust logs the messages
    # of its consumer under the name of the subclass's module.
    for name in ("faust", "aiokafka", "mode", "streams.agents.consumer"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A batch's matrices are too small for a second thread to help, and BLAS' threads spin between them.
    threadpool_limits(1, user_api="blas")
    process = build(config, agents, parts)
    # A batch allocates thousands of objects and frees them without the collector. Searching them for cycles, and all
    # that has been loaded, took a sixth of its time.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(process, loop)
    process.watchdog.start()
    try:
        worker.execute_from_commandline()
    except SystemExit:
        pass  # with a status of mode's own; it has logged what made the services crash
    except Exception:  # noqa: BLE001 - whatever made Faust's services crash
        _LOG.exception("a service crashed")
    status = worker.exit_status()
    _LOG.log(logging.CRITICAL if status else logging.INFO, "exited with status %d", status)
    return status
