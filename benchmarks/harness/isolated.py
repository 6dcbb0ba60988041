"""Short programs in processes of their own, for measurements of peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.harness.errors import BenchmarkError
from embedded.instance import CHECKOUT

#: Appended to each program. It reads /proc where there is one: on Linux, the peak of getrusage begins with that of the
#: parent process.
_PEAK = """
import json, pathlib, re, resource
try:
    found["peak"] = int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
except OSError:  # macOS, in bytes there
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(found))
"""


def run_isolated(program: str, *arguments: str, quiet: bool = True) -> Any:
    """Run a program and return its variable `found`, a dictionary; "peak" is added, its peak memory in bytes.

    Args:
        program: Python text. A function of a benchmark would count the imports of its module, too.
        arguments: `sys.argv[1:]` of the program.
        quiet: whether its standard error is shown only if it fails.

    Raises:
        BenchmarkError: its exit status is not 0.
    """
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", program + _PEAK, *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the measuring process ended with status {done.returncode}\n{done.stderr or ''}")
    return json.loads(done.stdout)
