"""How soon a newly published item is found."""

from __future__ import annotations

import threading
from types import TracebackType

from configs.schema import WorkerConfig
from embedded.demo.scoreboard import Scoreboard
from embedded.new_items import GIVE_UP, NewItems
from model.artifact import Artifact


class FreshnessProbe:
    """A thread that measures a new item every few seconds, while clicks flow.

    Args:
        config, artifact, seed: as for `NewItems`.
        board: where the times go.
        every: seconds between two items.
    """

    def __init__(
        self, config: WorkerConfig, artifact: Artifact, board: Scoreboard, *, every: float, seed: int = 0
    ) -> None:
        self._items = NewItems(config, artifact, seed=seed, on_published=board.published)
        self._board = board
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)

    def __enter__(self) -> FreshnessProbe:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=GIVE_UP)
        if not self._thread.is_alive():
            self._items.close()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._board.searchable.append(self._items.publish_one())
