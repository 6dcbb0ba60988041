"""A thread of the demo that publishes new items and measures how soon each of them is found."""

from __future__ import annotations

import threading
from types import TracebackType

from configs.schema import WorkerConfig
from embedded.demo.scoreboard import NewItemTimes
from embedded.new_items import FIND_TIMEOUT_S, NewItems
from model.artifact import Artifact


class FreshnessProbe:
    """Publishes an item every few seconds in a block, while clicks flow.

    Args:
        config, artifact, seed: as for `NewItems`.
        times: receives what is measured.
        interval_s: seconds between two items.
    """

    def __init__(
        self, config: WorkerConfig, artifact: Artifact, times: NewItemTimes, *, interval_s: float, seed: int = 0
    ) -> None:
        self._items = NewItems(config, artifact, seed=seed, on_published=times.add_published)
        self._times = times
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)

    def __enter__(self) -> FreshnessProbe:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=FIND_TIMEOUT_S)
        if not self._thread.is_alive():
            self._items.close()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._times.searchable_s.append(self._items.publish_one())
