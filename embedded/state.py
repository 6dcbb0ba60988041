"""The state file: which processes belong to a folder, so that every later command finds them."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedded.process import Identity

#: Incremented when the format of the file changes. Files of other versions are ignored: their processes are found by
#: the mark (`embedded.process`).
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One server in the state file. It is written before the server is ready, so that a crash leaves a trace.

    Attributes:
        flavour: which program serves: "kafka", "lite" or "standalone".
        port: where clients connect; kept after a stop, since the next start prefers it.
        pid, created: the process (see `Identity`); pid 0 = stopped by a command.
        ready: whether the readiness check has succeeded.
    """

    flavour: str
    port: int
    pid: int = 0
    created: float = 0.0
    ready: bool = False

    @property
    def identity(self) -> Identity | None:
        return Identity(self.pid, self.created) if self.pid else None

    @property
    def alive(self) -> bool:
        return self.identity is not None and self.identity.alive

    def stopped(self) -> Entry:
        return replace(self, pid=0, created=0.0, ready=False)


class StateFile:
    """`state.json`: server name → `Entry`. Thread-safe; processes need the lock of the `Instance`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()

    def read(self) -> dict[str, Entry]:
        """Return all entries; none if the file is missing, damaged or of another version."""
        try:
            document: dict[str, Any] = json.loads(self.path.read_bytes())
            if document["version"] != VERSION:
                return {}
            return {name: Entry(**fields) for name, fields in document["servers"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def get(self, name: str) -> Entry | None:
        return self.read().get(name)

    def put(self, name: str, entry: Entry) -> None:
        """Replace one entry. The file is replaced atomically, so that no reader sees a part of it."""
        with self._mutex:
            servers = {key: asdict(value) for key, value in {**self.read(), name: entry}.items()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_suffix(f".{os.getpid()}.tmp")
            fresh.write_text(json.dumps({"version": VERSION, "servers": servers}, indent=2) + "\n")
            fresh.replace(self.path)
