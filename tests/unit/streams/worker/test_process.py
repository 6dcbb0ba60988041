"""A worker process before its Faust apps run; the rest is tested on real servers."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from configs.errors import FatalError
from configs.loader import load_worker
from streams.worker import process as worker


def _blas_threads() -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_the_encoders_matrices_get_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def build(*_: object) -> None:
        found.extend(_blas_threads())
        raise FatalError("far enough")

    monkeypatch.setattr(worker, "build", build)
    with threadpool_limits(2, user_api="blas"):
        assert set(_blas_threads()) == {2}
        with pytest.raises(FatalError, match="far enough"):
            worker.run(load_worker(), {"clicks"})
    assert found and set(found) == {1}
