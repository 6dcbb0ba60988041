"""Detached processes, identified by their start times and ended with their children."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from embedded import process
from embedded.errors import tail
from embedded.state import Entry
from tests.unit.embedded.toy_servers import wait_until


def test_a_later_process_with_the_same_id_is_another_one() -> None:
    mine = process.Identity(os.getpid(), psutil.Process().create_time())
    assert mine.alive
    assert not process.Identity(os.getpid(), mine.created - 100).alive
    assert not Entry("kafka", 1, os.getpid(), mine.created - 100, ready=True).alive


def test_end_kills_children_that_ignore_sigterm(folder: Path) -> None:
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print('up', flush=True); time.sleep(60)"
    )
    environ = process.with_mark(os.environ, folder)
    identity = process.spawn([sys.executable, "-c", program], environ, folder, folder / "log")
    wait_until(lambda: "up" in tail(folder / "log"))
    assert len(process.marked_processes(folder)) == 2
    process.end(identity, timeout_s=0.2)
    assert process.marked_processes(folder) == []
