"""What benchmarks raise."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A benchmark could not be finished; the message says why."""
