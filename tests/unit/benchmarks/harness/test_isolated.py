"""Short programs in processes of their own."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.isolated import run_isolated


def test_peak_memory_is_that_of_the_program_only() -> None:
    held = np.ones(200 << 17)  # 200 MiB, which a forked process would begin with
    found = run_isolated("import sys\nfound = {'given': sys.argv[1:]}", "a", "b")
    assert found["given"] == ["a", "b"]
    assert 2**20 < found["peak"] < held.nbytes / 2
    with pytest.raises(BenchmarkError, match="status 3\nspoken"):
        run_isolated("import sys; print('spoken', file=sys.stderr); sys.exit(3)")
