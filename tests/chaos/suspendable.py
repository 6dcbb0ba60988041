"""Run `tests.chaos.worker` with a monotonic clock that can be set back while the process is stopped.

So it looks to the process as if its machine had been suspended (`tests.chaos.trips.Trips.suspend_clock`): other clocks
run on. The clock is replaced before other modules take it over by name.
"""

from __future__ import annotations

import os
import runpy
import time
from pathlib import Path

from tests.chaos.trips import clock_file


def _make_suspendable() -> None:
    clock = memoryview(clock_file(Path(os.environ["MINDSTREAM_TRIPS"]), os.getpid())).cast("d")
    monotonic = time.monotonic
    time.monotonic = time.perf_counter = lambda: monotonic() - clock[0]


if __name__ == "__main__":
    _make_suspendable()
    runpy.run_module("tests.chaos.worker", run_name="__main__", alter_sys=True)
