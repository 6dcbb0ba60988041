"""Detached processes: started here, found by later commands, ended with all their children.

A process is identified by its id and its start time, because the system reuses ids. Its environment also has the folder
that it belongs to (`MARK`): this is how processes are found that an `up` started and was killed before it could write
them to the state file.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

import psutil

#: Environment variable of every process that this package starts: the folder that it belongs to.
MARK = "MINDSTREAM_EMBEDDED_FOLDER"

#: Seconds by which two readings of a process's start time may differ, because the clock is adjusted occasionally.
_CLOCK_TOLERANCE_S = 2.0
#: Seconds to wait for a process after SIGKILL; only a process that hangs in the kernel needs more.
_KILL_TIMEOUT_S = 10.0
#: Size from which a log file is renamed when its server starts, so that logs do not grow without limit.
_LOG_LIMIT_BYTES = 10_000_000

# Our own children by pid. Until they are waited for they are zombies, which look alive.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Identity:
    """A process id with the start time of the process, in seconds since 1970, which later processes do not have."""

    pid: int
    created: float

    def find(self) -> psutil.Process | None:
        """Return the process; None if it has ended."""
        if (child := _children.get(self.pid)) is not None and child.poll() is not None:
            del _children[self.pid]
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _CLOCK_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        return None

    def ancestry(self) -> set[int]:
        """Return its own id and those of all its ancestors."""
        with suppress(psutil.NoSuchProcess):
            if (process := self.find()) is not None:
                return {self.pid, *(parent.pid for parent in process.parents())}
        return {self.pid}

    @property
    def alive(self) -> bool:
        return self.find() is not None


def with_mark(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return `environ` with the mark of a folder."""
    return {**environ, MARK: str(folder.resolve())}


def spawn(command: Sequence[str | Path], environ: Mapping[str, str], cwd: Path, log: Path) -> Identity:
    """Start `command` in a session of its own, so that it outlives Ctrl-C and this process; log its output to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - our own commands, no shell
            [str(part) for part in command],
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    with suppress(psutil.NoSuchProcess):
        return Identity(child.pid, psutil.Process(child.pid).create_time())
    return Identity(child.pid, time.time())


def marked_processes(folder: Path) -> list[Identity]:
    """Return all processes with the mark of a folder, whether or not the state file has them."""
    wanted = str(folder.resolve())

    def matching() -> Iterator[Identity]:
        for process in psutil.process_iter():
            # The environment of other users' processes cannot be read; they are not ours.
            with suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == wanted:
                    yield Identity(process.pid, process.create_time())

    return list(matching())


def end(identity: Identity, timeout_s: float) -> None:
    """End a process and all its children: the process by SIGTERM, and after `timeout_s` all that remain by SIGKILL.

    With a `timeout_s` of 0, SIGKILL is sent at once.
    """
    process = identity.find()
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        if timeout_s > 0:
            process.send_signal(SIGTERM)
            _wait([process], timeout_s)
        for member in tree:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        _wait(tree, _KILL_TIMEOUT_S)
    if (child := _children.get(identity.pid)) is not None and child.poll() is not None:
        del _children[identity.pid]


def _wait(processes: list[psutil.Process], timeout_s: float) -> None:
    psutil.wait_procs(processes, timeout=timeout_s)
