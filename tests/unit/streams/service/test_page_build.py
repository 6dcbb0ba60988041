"""The page, built from the parts of the service."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from configs.errors import FatalError
from configs.loader import load_service
from streams.metrics import ServiceMetrics
from streams.ports import ReplicaLag
from streams.service.access import Access
from streams.service.app import service_app
from streams.service.batching import SharedCalls
from streams.service.page_build import page_router
from streams.service.parts import ServiceParts, local_calls
from tests.unit.streams.service.models import small_artifact, small_engine


class _Empty:
    """A copy of an empty topic."""

    def get(self, user_ids: Any) -> Any:
        return None if isinstance(user_ids, str) else [None for _ in user_ids]

    def lag(self) -> ReplicaLag:
        return ReplicaLag(0, 0.0, True)


def _app(folder: Path, titles: Path | None) -> Any:
    """Return the app of a service that has only the page; its map is in `folder`."""
    artifact = small_artifact(folder / "artifact")
    engine, _ = small_engine(artifact)
    settings = [f"service.data_dir={folder / 'data'}", *([f"service.titles={titles}"] if titles else [])]
    config = load_service(None, settings, {})
    metrics = ServiceMetrics(CollectorRegistry())
    calls: SharedCalls[Any, Any] = SharedCalls(
        lambda users: users, batch_users=1, queue_users=9, timeout_s=9, metrics=metrics
    )
    parts = SimpleNamespace(
        artifact=artifact,
        config=config,
        engine=engine,
        access=Access({}),
        recommender=SimpleNamespace(calls=calls),
        local=local_calls(config.service),
        stopping=threading.Event(),
        histories=_Empty(),
        newest=_Empty(),
    )
    return service_app(config.service, [page_router(cast("ServiceParts", parts))], metrics)


def test_the_page_shows_titles_and_its_map_while_the_service_runs(tmp_path: Path) -> None:
    titles = tmp_path / "titles.csv.gz"
    with gzip.open(titles, "wt") as file:
        file.write("item_id,title\n1,Comets\n")
    with TestClient(_app(tmp_path, titles), "http://localhost") as client:
        assert client.get("/page/start").json()["items"][0]["title"] == "Comets"
        assert client.get("/page/users/anna").json()["stored"] is None
        while client.get("/page/map").json()["state"] == "computing":
            pass
        assert client.get("/page/map").json()["state"] == "ready"
    assert [path.suffix for path in (tmp_path / "data").iterdir()] == [".npz"]


def test_without_titles_there_are_ids(tmp_path: Path) -> None:
    with TestClient(_app(tmp_path, None), "http://localhost") as client:
        assert client.get("/page/start").json()["named"] is False


def test_titles_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "titles.csv").write_text("1\n")
    with pytest.raises(FatalError, match=r"line 1: expected item_id,name.*service.titles"):
        _app(tmp_path, tmp_path / "titles.csv")
    with pytest.raises(FatalError, match=r"missing.csv"):
        _app(tmp_path, tmp_path / "missing.csv")
