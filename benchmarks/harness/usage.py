"""CPU time and memory of processes, and a worker's metrics of its batches."""

from __future__ import annotations

from contextlib import suppress

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.harness.errors import BenchmarkError
from embedded.program import WorkerProgram, http_get


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds, user and system, of a process and its children so far; 0 if it has ended."""
    used = 0.0
    for member in _family(pid):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            used += times.user + times.system
    return used


def memory_bytes(pid: int) -> int:
    """Return the resident set of a process and its children in bytes; 0 if it has ended."""
    used = 0
    for member in _family(pid):
        with suppress(psutil.NoSuchProcess):
            used += int(member.memory_info().rss)
    return used


def stage_seconds(worker: WorkerProgram) -> dict[str, float]:
    """Return stage → seconds that the worker's batches of clicks have spent in it so far."""
    samples = _samples(worker)
    return {s.labels["stage"]: s.value for s in samples if s.name == "mindstream_clicks_stage_seconds_sum"}


def batch_counts(worker: WorkerProgram) -> tuple[int, int]:
    """Return the number of batches of clicks so far, and of the messages in them."""
    values = {s.name: int(s.value) for s in _samples(worker)}
    return values["mindstream_clicks_batch_messages_count"], values["mindstream_clicks_batch_messages_sum"]


def _samples(worker: WorkerProgram) -> list[Sample]:
    status, body = http_get(worker.metrics_port, "/metrics")
    if status != 200:
        raise BenchmarkError(f"/metrics of {worker.name} answers {status}")
    return [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]


def _family(pid: int) -> list[psutil.Process]:
    """Return a process and all its children; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []
