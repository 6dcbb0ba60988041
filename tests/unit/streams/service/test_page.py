"""The routes of the page, and its files."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.testclient import TestClient

from configs.loader import load_service
from streams.kafka.reading import ReceivedMessage
from streams.messages.recommendations import Recommendation
from streams.metrics import ServiceMetrics
from streams.ports import ReplicaLag
from streams.service.access import Access
from streams.service.app import service_app
from streams.service.batching import SharedCalls
from streams.service.catalogue import Catalogue
from streams.service.explanation import Explainer
from streams.service.item_map import ItemMap, MapInBackground
from streams.service.live import LiveStream
from streams.service.page import FILES, STATIC, Page, routes
from streams.service.parts import local_calls
from streams.service.ports import UserHistory
from tests.unit.streams.service.models import NAMES, small_artifact, small_engine

LAG = ReplicaLag(3, 0.5, True)
TOKEN = SecretStr("x" * 20)
HUGE = 2**62 + 1


class _Histories:
    def __init__(self) -> None:
        self.of: dict[str, UserHistory] = {}

    def get(self, user_ids: Sequence[str]) -> list[UserHistory | None]:
        return [self.of.get(user) for user in user_ids]

    def lag(self) -> ReplicaLag:
        return LAG


class _Newest:
    def __init__(self) -> None:
        self.of: dict[str, Recommendation] = {}

    def get(self, user_id: str) -> Recommendation | None:
        return self.of.get(user_id)

    def lag(self) -> ReplicaLag:
        return LAG


class _Silent:
    """A stream without messages."""

    def follow(self) -> Generator[ReceivedMessage | None]:
        while True:
            yield None

    def lag(self) -> int:
        return 0

    def close(self) -> None:
        pass


class _World:
    def __init__(self, folder: Path, token: SecretStr | None = None, listeners: int = 2) -> None:
        settings, metrics = load_service(None, (), {}).service, ServiceMetrics(CollectorRegistry())
        self.artifact = small_artifact(folder / "artifact")
        engine, self.index = small_engine(self.artifact)
        self.histories, self.newest = _Histories(), _Newest()
        self.map = MapInBackground(self.artifact, folder)  # never started: it has no map until a test gives it one
        self.live = LiveStream(_Silent, "clicks", [], listeners, threading.Event())
        page = Page(
            model_version=self.artifact.model_version,
            history_length=self.artifact.history_length,
            catalogue=Catalogue(self.artifact, NAMES),
            engine=engine,
            explainer=Explainer(self.artifact, engine, 4),
            calls=SharedCalls(lambda users: users, batch_users=1, queue_users=9, timeout_s=9, metrics=metrics),
            local=local_calls(settings),
            histories=self.histories,
            newest=self.newest,
            live=self.live,
            map=self.map,
        )
        access = Access({"read": token})
        app = service_app(settings, [routes(page, access.requires("read"))], metrics)
        self.app = app
        self.client = TestClient(app, "http://localhost")

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return orjson.loads(answer.content)

    def explanation(self, *history: int) -> Any:
        answer = self.client.post("/page/explanation", json={"history": list(map(str, history))})
        assert answer.status_code == 200, answer.text
        return orjson.loads(answer.content)

    def give_map(self) -> None:
        ids = self.artifact.item_ids
        positions = np.stack([ids / 10, -ids / 10], axis=1).astype(np.float32)
        self.map._map = ItemMap(ids, positions, np.array(self.artifact.item_vectors))


@pytest.fixture
def world(tmp_path: Path) -> _World:
    return _World(tmp_path)


def test_the_start_names_the_model_and_some_items(world: _World) -> None:
    start = world.get("/page/start")
    assert start["model_version"] == world.artifact.model_version
    assert start["history_length"] == 3 and start["named"] is True
    assert start["items"][0] == {"id": "1", "title": "Comets", "category": "Astronomy"}
    assert [item["id"] for item in world.get("/page/items?q=moon")["items"]] == ["6"]


def test_a_made_up_history_is_explained(world: _World) -> None:
    answer = world.explanation(3, 99, 2, 1)
    assert [item["id"] for item in answer["history"]] == ["1", "2", "99", "3"], "newest first"
    assert [(click["id"], click["feeds"]) for click in answer["clicks"]][:2] == [("1", 0), ("2", 1)]
    assert answer["unknown"] == ["99"]
    assert len(answer["interests"]) == 2
    assert answer["interests"][0]["recalled"][0]["id"] == "6", "like the newest click"
    assert {item["id"] for item in answer["merged"]} >= {"6", "7"}
    assert answer["merged"][0].keys() == {"id", "title", "category", "score", "interest", "seen"}
    assert answer["places"] == {} and answer["interest_places"] == [], "there is no map yet"


def test_what_cannot_be_explained_is_empty_and_named(world: _World) -> None:
    assert world.explanation()["merged"] == []
    unknown = world.explanation(99, HUGE)
    assert (unknown["merged"], unknown["interests"], unknown["clicks"]) == ([], [], [])
    assert unknown["unknown"] == ["99", str(HUGE)]
    assert [item["id"] for item in unknown["history"]] == [str(HUGE), "99"], "ids keep all their digits"


@pytest.mark.parametrize("history", [["0"], ["x"], [1.5], ["9" * 19], ["1"] * 1001, "1", None])
def test_what_is_no_history_is_refused(world: _World, history: Any) -> None:
    assert world.client.post("/page/explanation", json={"history": history}).status_code == 422


def test_a_user_of_the_stream_is_shown_with_what_the_worker_published(world: _World) -> None:
    world.histories.of["anna"] = UserHistory(np.array([2, 1]), 3, 17, 123.5)
    items = [6, 7]
    world.newest.of["anna"] = Recommendation("anna", items, [0.9, 0.8], [0, 1], "m1", 2, 3, 17, 1e9, 1e9 + 1)
    answer = world.get("/page/users/anna")
    assert answer["stored"] == {"partition": 3, "offset": 17, "updated_at": 123.5}
    assert [item["id"] for item in answer["clicks"]] == ["1", "2"]
    assert [(item["id"], item["interest"]) for item in answer["newest"]["items"]] == [("6", 0), ("7", 1)]
    assert answer["newest"]["source"] == {"partition": 3, "offset": 17}
    assert answer["replicas"]["histories"] == {"messages": 3, "age_s": 0.5, "caught_up": True}


def test_an_unknown_user_has_nothing_rather_than_zeros(world: _World) -> None:
    answer = world.get("/page/users/someone%2Fnew")
    assert (answer["stored"], answer["newest"], answer["merged"]) == (None, None, [])


def test_a_vector_can_be_read_to_publish_one_like_it(world: _World) -> None:
    assert world.get("/page/items/1/embedding") == {"embedding": [1.0, 0.0, 0.0, 0.0, 0.0]}
    assert world.client.get("/page/items/99/embedding").status_code == 404
    assert world.client.get("/page/items/x/embedding").status_code == 422


def test_the_map_has_a_state_until_it_is_there(world: _World) -> None:
    assert world.get("/page/map") == {"state": "computing", "fault": "", "items": []}
    world.give_map()
    found = world.get("/page/map")
    assert found["state"] == "ready" and len(found["items"]) == 10
    assert found["items"][0] == {"id": "1", "title": "Comets", "category": "Astronomy", "at": [0.1, -0.1]}


def test_an_explanation_says_where_everything_is_on_the_map(world: _World) -> None:
    world.give_map()
    world.index.upsert(np.array([77]), np.array(world.artifact.item_vectors[:1]))
    answer = world.explanation(99, 77, 1)
    assert answer["places"]["1"] == [0.1, -0.1]
    assert "77" in answer["places"] and "99" not in answer["places"]
    shown = {item["id"] for interest in answer["interests"] for item in interest["recalled"]}
    assert shown <= answer["places"].keys()
    assert np.isfinite(answer["interest_places"]).all() and len(answer["interest_places"]) == 2


def test_the_files_need_no_token_and_everything_else_does(tmp_path: Path) -> None:
    world = _World(tmp_path, TOKEN)
    assert world.client.get("/").status_code == world.client.get("/page/static/app.js").status_code == 200
    for path in ("/page/start", "/page/items", "/page/map", "/page/users/anna", "/page/live"):
        assert world.client.get(path).status_code == 401, path
        wrong = world.client.get(path, headers={"Authorization": "Bearer another-token-to-read"})
        assert wrong.status_code == 401
    right = world.client.get("/page/start", headers={"Authorization": f"Bearer {TOKEN.get_secret_value()}"})
    assert right.status_code == 200
    assert world.client.post("/page/explanation", json={"history": []}).status_code == 401


def test_a_further_browser_is_refused(tmp_path: Path) -> None:
    answer = _World(tmp_path, listeners=0).client.get("/page/live")
    assert answer.status_code == 503 and "page_listeners" in answer.text


def test_events_end_when_the_service_stops(world: _World) -> None:
    world.live.stop()
    answer = world.client.get("/page/live")
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_the_page_is_no_part_of_the_public_contract(world: _World) -> None:
    assert world.app.openapi()["paths"] == {}


def test_no_other_file_is_served(world: _World) -> None:
    for path in ("/page/static/page.py", "/page/static/..%2Fpage.py", "/page/static/", "/page/static/../page.py"):
        assert world.client.get(path).status_code == 404, path


class _Links(HTMLParser):
    """Collects what a document loads, and what a strict policy would block."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.blocked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "link"):
            self.loaded.append(found.get("src") or found.get("href", ""))
        self.ids += [found["id"]] if "id" in found else []
        for name in ("for", "aria-labelledby", "aria-describedby"):
            self.references += found.get(name, "").split()
        self.blocked += [f"{tag} {name}" for name in found if name == "style" or name.startswith("on")]
        if tag in ("script", "style") and "src" not in found:
            self.blocked.append(tag)


def test_the_page_loads_only_its_own_files_and_has_nothing_that_its_policy_blocks(world: _World) -> None:
    answer = world.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    links = _Links()
    links.feed(answer.text)
    assert links.blocked == []
    assert {path.removeprefix("/page/static/") for path in links.loaded} <= FILES.keys()
    assert len(links.ids) == len(set(links.ids)) and set(links.references) <= set(links.ids)
    for name, path in FILES.items():
        served = world.client.get(f"/page/static/{name}")
        assert served.status_code == 200 and served.headers["content-security-policy"] == policy
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|eval\(|@import", text), name


def test_scripts_use_only_elements_that_the_page_has() -> None:
    links = _Links()
    links.feed((STATIC / "index.html").read_text(encoding="utf-8"))
    scripts = [path for name, path in FILES.items() if name.endswith(".js")]
    text = "".join(path.read_text(encoding="utf-8") for path in scripts)
    used = set(re.findall(r'\$\("([\w-]+)"\)', text))
    assert used and used <= set(links.ids)
    assert set(re.findall(r'from "\./([\w.]+)"', text)) <= FILES.keys()
