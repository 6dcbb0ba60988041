"""The folder of a stack: where its data, logs and state are, who may change them, and how they are removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from embedded.errors import EmbeddedError
from embedded.state import StateFile

CHECKOUT = Path(__file__).resolve().parent.parent
#: Default folder of a stack; ignored by git.
FOLDER = CHECKOUT / ".mindstream" / "embedded"
#: Downloads, shared by all stacks.
CACHE = CHECKOUT / ".mindstream" / "cache"

#: Bytes that must be free: room for the downloads (0.4 GB), Kafka's first segments and a demo's data.
DISK_NEEDED = 1 << 30
#: Seconds to wait for another command on the same folder: a first start with downloads takes minutes.
_LOCK_TIMEOUT_S = 900.0

Reporter = Callable[[str], None]


def silent(_line: str) -> None:
    """Discard a progress line: the `Reporter` of callers who show none."""


@dataclass(frozen=True)
class Instance:
    """The folders of one stack, and its state.

    Attributes:
        folder: data, logs and state of its servers.
        cache: downloads, shared by all instances.
        state: which processes belong to it.
    """

    folder: Path
    cache: Path
    state: StateFile

    @classmethod
    def in_folder(cls, folder: Path, cache: Path = CACHE) -> Instance:
        """Return the instance of a folder, with its state file there; creates nothing."""
        folder = folder.resolve()
        return cls(folder, cache.resolve(), StateFile(folder / "state.json"))

    @contextmanager
    def lock(self, report: Reporter) -> Iterator[None]:
        """Keep other commands from changing the folder during a block; wait while one is changing it.

        Raises:
            EmbeddedError: another command has not ended in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report("Waiting for another up or down of this folder …")
            try:
                lock.acquire(timeout=_LOCK_TIMEOUT_S)
            except Timeout:
                raise EmbeddedError(
                    f"Another up or down has been working on {self.folder} for {_LOCK_TIMEOUT_S:.0f} s: stop it."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def require_disk(self) -> None:
        """Raise `EmbeddedError` if a disk is too full; creates the folders."""
        for folder in (self.folder, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < DISK_NEEDED:
                raise EmbeddedError(
                    f"Only {free / 1e9:.1f} GB are free on the disk of {folder}; {DISK_NEEDED / 1e9:.1f} GB "
                    "are needed. Make room, or give another folder with --dir."
                )

    def wipe(self) -> None:
        """Delete the stack's files and nothing else: --dir may name a folder with other things in it."""
        for name in ("kafka", "milvus", "logs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for file in self.folder.glob("state.*"):
            file.unlink(missing_ok=True)
