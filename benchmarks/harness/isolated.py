"""Runs a short program in a process of its own, whose peak memory is its alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.report import ROOT

#: Behind each program. Not getrusage, where there is /proc: Linux lets a process begin with the peak of the one that
#: started it.
_PEAK = """
import json, pathlib, re, resource
try:
    found["peak"] = int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
except OSError:  # macOS, in bytes there
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(found))
"""


def alone(program: str, *arguments: str, quiet: bool = True) -> Any:
    """What the program leaves in its variable `found`, a dictionary, with the bytes of its peak memory as "peak".

    Args:
        program: text, not a function of a benchmark: the imports of that one's module would count.
        arguments: its sys.argv[1:].
        quiet: show its standard error only when it fails.

    Raises:
        BenchmarkError: it ended with another status than 0.
    """
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", program + _PEAK, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the measuring process ended with status {done.returncode}\n{done.stderr or ''}")
    return json.loads(done.stdout)
