"""Local stores that one thread writes, and any thread reads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

from configs.errors import TransientError
from streams.history import Fence
from streams.state.damage import disk_error, is_disk_fault
from streams.state.store import PartitionStores

#: File whose time of modification is that up to which the stores are known to be complete.
_COMPLETE = "complete-until"


class SharedStores(PartitionStores):
    """`PartitionStores` with a method that other threads may call while one thread uses all others.

    RocksDB reads and writes at the same time, but a database must not be closed while it is read. So a lock guards
    reading and closing. No write needs it: a reader never waits until a chunk is written.

    Args:
        folder, fence_of, setting: see `PartitionStores`.
    """

    def __init__(self, folder: Path, fence_of: Callable[[bytes, int], Fence | None], setting: str) -> None:
        super().__init__(folder, fence_of, setting)
        self._reading = threading.Lock()
        self._read_faults: dict[int, Exception] = {}

    def peek(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one record, or None, for each key. May be called from any thread.

        Raises:
            TransientError: the database is closed now, or damaged. The thread that writes replaces it.
        """
        with self._reading:
            database = self._open.get(partition)
            if database is None:
                raise TransientError("the local copy", f"partition {partition} is being restored")
            try:
                return cast("list[bytes | None]", database.get(list(keys)))
            except Exception as error:
                if not is_disk_fault(error):
                    raise
                self._read_faults[partition] = error
                raise TransientError("the local copy", f"partition {partition} cannot be read: {error}") from error

    def raise_read_faults(self) -> None:
        """Raise what `peek` met, as the methods that write do: a damaged database is set aside.

        Raises:
            RestartRequired, FatalError: see `PartitionStores`.
        """
        while self._read_faults:
            partition, error = self._read_faults.popitem()
            with self._faults(partition):
                raise error

    def are_open(self, partitions: Iterable[int]) -> bool:
        """Return whether the databases of all these partitions can be read. May be called from any thread."""
        return all(partition in self._open and partition not in self._read_faults for partition in partitions)

    def age_s(self) -> float | None:
        """Return how many seconds ago the stores were complete, as far as is known.

        None = not known: there is no note, or one of a time that has not come, because the clock was set back.
        """
        try:
            age_s = time.time() - (self._folder / _COMPLETE).stat().st_mtime
        except FileNotFoundError:
            return None
        return None if age_s < 0 else age_s

    def set_age(self, age_s: float) -> None:
        """Note that the stores hold everything that the topic held so many seconds ago.

        Raises:
            RestartRequired, FatalError: see `PartitionStores`.
        """
        file, complete_until = self._folder / _COMPLETE, time.time() - age_s
        try:
            file.touch()
            os.utime(file, (complete_until, complete_until))
        except OSError as error:
            raise disk_error(file, error, self._setting) from error

    def _close(self, partition: int) -> None:
        with self._reading:
            super()._close(partition)
