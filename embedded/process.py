"""Detached processes: started here, found again by later runs, ended with all their children.

A process is known by its number together with its start time, since numbers are used again. Besides, each carries its
folder in the environment (`MARK`): whatever a killed `up` left behind before it could write it down is found by that.
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

#: Environment variable of every process that this package starts: the instance folder that it belongs to.
MARK = "MINDSTREAM_EMBEDDED_FOLDER"

#: Seconds that two readings of one process's start time may differ: the clock is adjusted now and then.
_CLOCK_SLACK = 2.0
#: Seconds to wait for a process after SIGKILL; only a process stuck in the kernel needs more.
_KILL_WAIT = 10.0
#: Bytes from which a log file is set aside when its server starts, so that logs don't grow for ever.
_LOG_LIMIT = 10_000_000

# Our own children by pid. Unless somebody waits for them they stay zombies, which look alive.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Identity:
    """One process, told from later ones with the same number by its start time (seconds since 1970)."""

    pid: int
    created: float

    def find(self) -> psutil.Process | None:
        """The process, or None when it has ended."""
        if (child := _children.get(self.pid)) is not None and child.poll() is not None:
            del _children[self.pid]
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _CLOCK_SLACK
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        return None

    def lineage(self) -> set[int]:
        """Its own number and those of its parents, grandparents and so on."""
        with suppress(psutil.NoSuchProcess):
            if (process := self.find()) is not None:
                return {self.pid, *(parent.pid for parent in process.parents())}
        return {self.pid}

    @property
    def alive(self) -> bool:
        return self.find() is not None


def marked(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """`environ` with the mark of the instance `folder`."""
    return {**environ, MARK: str(folder.resolve())}


def spawn(command: Sequence[str | Path], environ: Mapping[str, str], cwd: Path, log: Path) -> Identity:
    """Start `command` in a session of its own, so that neither Ctrl-C nor our end reaches it; output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - commands of ours, no shell
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


def leftovers(folder: Path) -> list[Identity]:
    """All processes marked with `folder`, whether or not anybody wrote them down."""
    wanted = str(folder.resolve())

    def matching() -> Iterator[Identity]:
        for process in psutil.process_iter():
            # Other users' processes can't be read, and can't be ours.
            with suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == wanted:
                    yield Identity(process.pid, process.create_time())

    return list(matching())


def end(identity: Identity, grace: float) -> None:
    """End a process and all its children: SIGTERM to the process, SIGKILL to all that remains after `grace` seconds.

    With `grace` 0 nobody gets a chance to tidy up.
    """
    process = identity.find()
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        if grace > 0:
            process.send_signal(SIGTERM)
            _wait([process], grace)
        for member in tree:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        _wait(tree, _KILL_WAIT)
    if (child := _children.get(identity.pid)) is not None and child.poll() is not None:
        del _children[identity.pid]


def _wait(processes: list[psutil.Process], timeout: float) -> None:
    psutil.wait_procs(processes, timeout=timeout)
