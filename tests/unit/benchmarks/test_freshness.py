"""The open schedule on which items are published."""

from __future__ import annotations

import threading
import time

import numpy as np

from benchmarks.freshness import publish_all
from embedded.new_items import NewItems
from embedded.program import WorkerProgram
from model.arrays import FloatVector


class LateFirstItem(NewItems):
    """New items of which the first is found only after three others."""

    def __init__(self) -> None:
        self.published, self.others = 0, threading.Semaphore(0)

    def publish(self) -> tuple[int, FloatVector]:
        self.published += 1
        return self.published, np.zeros(2, np.float32)

    def await_found(self, item_id: int, vector: FloatVector, since: float) -> float:
        if item_id > 1:
            self.others.release()
        else:
            assert all(self.others.acquire(timeout=60) for _ in range(3))
        return time.monotonic() - since


class Alive(WorkerProgram):
    def __init__(self) -> None:
        pass

    def require_running(self) -> None:
        pass


def test_no_item_waits_for_one_before_it_to_be_found() -> None:
    first, *others = publish_all(LateFirstItem(), 4, Alive())
    assert len(others) == 3
    assert first > 0.59  # the fourth is scheduled 0.6 s later
