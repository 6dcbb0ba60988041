"""A process under observation: its log, its metrics, its CPU time and memory, its end."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.harness.errors import BenchmarkError

#: Seconds that a worker gets to own its partitions, on a busy machine.
_READY = 120.0
#: Seconds that a worker gets to leave (its own limit is 5), or to show its metrics.
_LEAVE = 20.0
#: Seconds between two looks at a log or a process.
_POLL = 0.02


class Worker:
    """A process under observation: a worker, or something that a worker is measured against."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log
        self.metrics_port = 0  # of a worker

    def stages(self) -> dict[str, float]:
        """BenchmarkServers → seconds that the worker's batches of clicks have spent in it so far."""
        return {s.labels["stage"]: s.value for s in self._samples() if s.name == "mindstream_clicks_stage_seconds_sum"}

    def batches(self) -> tuple[int, int]:
        """Batches of clicks so far, and messages in them."""
        values = {s.name: int(s.value) for s in self._samples()}
        return values["mindstream_clicks_batch_messages_count"], values["mindstream_clicks_batch_messages_sum"]

    def _samples(self) -> list[Sample]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=_LEAVE) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        return [sample for family in families for sample in family.samples]

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self._process.pid)

    @property
    def memory(self) -> int:
        """Bytes in memory now."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def await_log(self, text: bytes, times: int = 1) -> None:
        """Raises BenchmarkError when it ends, or has not logged the text in time."""
        deadline = time.monotonic() + _READY
        while self.log.read_bytes().count(text) < times:
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"not ready after {_READY:.0f} s\n{self._tail()}")
            time.sleep(_POLL)

    def await_end(self) -> str:
        """What it wrote, when it has ended with status 0."""
        while self._process.poll() is None:
            time.sleep(_POLL)
        if self._process.returncode != 0:
            self.check()
        return self.log.read_text()

    def check(self) -> None:
        """Raises BenchmarkError when it has ended."""
        if self._process.poll() is not None:
            status = self._process.returncode
            raise BenchmarkError(f"{self.log.stem} ended with status {status}\n{self._tail()}")

    def end(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=_LEAVE)
        except BaseException as error:
            self._process.kill()  # a second Ctrl-C must not leave it behind
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])


def cpu_seconds(pid: int) -> float:
    """CPU seconds, user and system, of a process and all its children so far; 0 when it has ended."""
    used = 0.0
    for member in family(pid):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            used += times.user + times.system
    return used


def family(pid: int) -> list[psutil.Process]:
    """A process and all its children; none when it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []
