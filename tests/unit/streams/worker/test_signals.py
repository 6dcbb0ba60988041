"""Signals reach their thread also while the main thread hangs in C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

#: Installs the reactions of sys.argv[1] and hangs, with the interpreter's lock released and signals not handled.
PROGRAM = """
import ctypes, os, sys
from streams.worker.signals import exit_on_stop_signal, on_stop_signal
exit_on_stop_signal()
if sys.argv[1] == "replaced":
    on_stop_signal(lambda number: os._exit(40 + number))
print("ready", flush=True)
while True:
    ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize(("mode", "statuses"), [("sleep", (0, 0)), ("replaced", (55, 42))])
def test_a_hanging_main_thread_does_not_keep_the_process(mode: str, statuses: tuple[int, int]) -> None:
    for number, status in zip((signal.SIGTERM, signal.SIGINT), statuses, strict=True):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, mode], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process, process.stdout:
            assert process.stdout.readline() == b"ready\n"
            started = time.monotonic()
            process.send_signal(number)
            assert process.wait(timeout=20) == status
            assert time.monotonic() - started < 10


#: Sends itself a second signal while files are open that may have got the numbers of closed ones; prints their sizes.
TWICE = """
import os, signal, tempfile, threading
from streams.worker.signals import on_stop_signal
reacted = threading.Event()
on_stop_signal(lambda _: reacted.set())
os.kill(os.getpid(), signal.SIGTERM)
reacted.wait(10)
for thread in threading.enumerate():
    if thread.name == "signals":
        thread.join(0.5)
files = [tempfile.TemporaryFile() for _ in range(8)]
os.kill(os.getpid(), signal.SIGTERM)
print(sum(os.fstat(file.fileno()).st_size for file in files))
"""


def test_a_second_signal_is_not_written_into_a_file_that_was_opened_meanwhile() -> None:
    assert subprocess.run([sys.executable, "-c", TWICE], capture_output=True, check=True, timeout=30).stdout == b"0\n"
