"""Errors of the benchmarks."""

from __future__ import annotations

from configs.errors import MindstreamError


class BenchmarkError(MindstreamError):
    """A benchmark could not be finished; the message says why."""
