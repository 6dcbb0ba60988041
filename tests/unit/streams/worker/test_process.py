"""What a worker process is before its Faust apps run; the rest is tested on real servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from configs.errors import FatalError
from configs.loader import load_worker
from model.artifact import save_artifact
from streams.artifacts import encoder_of
from streams.worker import build as app
from streams.worker import process as worker
from tests.unit.model.test_artifact import content


def _blas_threads() -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize(("batch", "most"), [(1, 4096), (256, 4096), (4000, 8000)])
def test_kafkas_client_hands_over_some_batches_not_all_that_it_has(batch: int, most: int) -> None:
    made = app._faust_app(load_worker(), "clicks", batch)
    assert made.conf.broker_max_poll_records == most


def test_an_artifact_of_another_version_is_refused(tmp_path: Path) -> None:
    foreign = save_artifact(tmp_path / "a", **content() | {"encoder": {"layers": 2}})
    with pytest.raises(FatalError, match="train the model again"):
        encoder_of(foreign)


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
