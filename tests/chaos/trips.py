"""Trip-wires: where a worker of the chaos suite can be told to die or to be paused."""

from __future__ import annotations

import signal
import time
from pathlib import Path

#: Point in the work → what has happened there.
POINTS = {
    "searched": "Milvus has answered, nothing is sent",
    "half sent": "Kafka has any half of the batch's messages",
    "answers sent": "Kafka has the recommendations, no history record",
    "histories sent": "Kafka has the history records, no recommendation",
    "sent": "Kafka has all messages, the store nothing",
    "stored": "the store has them, nothing is committed",
    "committing": "just before a commit",
    "committed": "just after a commit",
    "restoring": "some histories are restored",
}
SABOTAGES = ("no fence", "commit first", "no repair")


class Trips:
    """Arms points for the workers that were started with `environment`."""

    def __init__(self, folder: Path, sabotage: str | None = None) -> None:
        folder.mkdir()
        self._folder = folder
        self.environment = {"MINDSTREAM_TRIPS": str(folder), "MINDSTREAM_SABOTAGE": sabotage or ""}

    def arm(self, point: str, what: signal.Signals) -> None:
        """The next worker that passes the point gets the signal."""
        assert point in POINTS
        armed = self._folder / f".{point}"
        armed.write_text(what.name)
        armed.rename(self._folder / point)  # never seen half-written

    def await_victim(self, point: str, patience: float) -> int | None:
        """Process number of the worker that got it; None if none did, and then none will."""
        deadline = time.monotonic() + patience
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
