"""Trip-wires: points at which a worker of the chaos suite can be killed or paused."""

from __future__ import annotations

import mmap
import signal
import struct
import time
from pathlib import Path

#: Point in the processing of a batch of clicks → the state at this point.
CLICK_POINTS = {
    "searched": "Milvus has answered, nothing was sent",
    "half sent": "Kafka has a random half of the messages of the batch",
    "answers sent": "Kafka has the recommendations, but no history record",
    "histories sent": "Kafka has the history records, but no recommendation",
    "sent": "Kafka has all messages, the store has nothing",
    "stored": "the store has the records, nothing was committed",
    "committing": "just before a commit",
    "committed": "just after a commit",
    "restoring": "some histories were restored",
}
#: The same for a batch of items.
ITEM_POINTS = {
    "leasing": "just before the lease is checked",
    "upserting": "the lease is valid, Milvus has nothing",
}
#: Rules of the delivery guarantee that a worker can be made to break.
SABOTAGES = ("no fence", "commit first", "no repair")


def clock_file(folder: Path, pid: int) -> mmap.mmap:
    """Return the file with the seconds by which the monotonic clock of a process is set back, as a double."""
    path = folder / f"clock.{pid}"
    if not path.exists():
        path.write_bytes(struct.pack("d", 0.0))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


class Trips:
    """Arms trip-wires of the workers that are started with `environment`."""

    def __init__(self, folder: Path, sabotage: str | None = None) -> None:
        folder.mkdir()
        self._folder = folder
        self.environment = {"MINDSTREAM_TRIPS": str(folder), "MINDSTREAM_SABOTAGE": sabotage or ""}

    def arm(self, point: str, number: signal.Signals) -> None:
        """Have the signal sent to the next worker that reaches the point."""
        assert point in CLICK_POINTS | ITEM_POINTS
        armed = self._folder / f".{point}"
        armed.write_text(number.name)
        armed.rename(self._folder / point)  # atomic: a worker never reads half a name

    def await_victim(self, point: str, timeout_s: float) -> int | None:
        """Return the process id of the worker that got the signal; disarm the point and return None if none did."""
        deadline = time.monotonic() + timeout_s
        while (self._folder / point).exists():
            if time.monotonic() > deadline:
                try:
                    (self._folder / point).rename(self._folder / f"{point}.unused")
                except FileNotFoundError:
                    break
                return None
            time.sleep(0.05)
        (taken,) = self._folder.glob(f"{point}.[0-9]*")
        pid = int(taken.suffix[1:])
        taken.unlink()
        return pid

    def suspend_clock(self, pid: int, seconds: float) -> None:
        """Set back the monotonic clock of a stopped worker by as many seconds, as if its machine had been suspended."""
        clock = clock_file(self._folder, pid)
        (before,) = struct.unpack("d", clock)
        clock[:] = struct.pack("d", before + seconds)
        clock.close()
