"""A clock for ages and leases."""

from __future__ import annotations

import time


def boot_clock() -> float:
    """Return seconds of a clock that is never set, and runs on while the machine is suspended.

    Python's monotonic clock stops meanwhile, on Linux; the clocks of other machines, such as the brokers', do not.
    """
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # Linux only
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)
