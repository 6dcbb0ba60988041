"""The published contract: its exact bodies, its answers, its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.errors import TransientError
from model.serving.norms import normalised
from tests.unit.model.test_evaluate import IDS, axes
from tests.unit.streams.service.world import ServiceWorld

#: The body of the published demonstration, word for word.
RECALL_BODY = """{
  "top_k": 50,
  "hist_item": [[43,23,65,675,3456,8654,123454,54367,234561],\
[675,3456,8654,123454,76543,1234,9769,5670,65443,123098,34219,234098]]
}"""
JSON = {"accept": "application/json", "Content-Type": "application/json"}
FORM = {"accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}  # curl's, with -d ''
ADMIN = {"Authorization": "Bearer admin-token-of-the-tests"}


class World(ServiceWorld):
    """A service whose model has the items 10, 20, …, 60, with an empty collection."""

    def __init__(self, folder: Path) -> None:
        settings = ["service.admin_token=admin-token-of-the-tests", "service.insert_timeout=0.2"]
        limits = ["service.max_users=3", "service.max_history=4", "service.max_top_k=60", "recall.top_k=2"]
        super().__init__(folder, *settings, *limits, vectors=normalised(axes()))
        self.memory.delete(IDS)
        self.catalogue.count()

    def post(self, path: str, content: str = "", headers: dict[str, str] = FORM) -> tuple[int, Any]:
        answer = self.client.post(path, content=content, headers=headers)
        return answer.status_code, answer.json()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("streams.service.bulk._POLL_INTERVAL_S", 0.001)
    return World(tmp_path)


def test_the_four_calls_of_the_demonstration(world: World) -> None:
    assert world.post("/rec/count") == (200, 0)
    assert world.post("/rec/insert_data", headers=FORM | ADMIN) == (200, 6)
    assert world.post("/rec/count") == (200, 6)
    assert world.post("/rec/recall", RECALL_BODY, JSON) == (200, [[], []]), "the model knows none of these items"
    assert world.post("/qa/drop", headers=FORM | ADMIN) == (200, 6)
    assert world.post("/rec/count") == (200, 0)


def test_a_list_of_item_ids_is_recalled_for_each_history(world: World) -> None:
    world.parts.writes.bulk.insert()
    body = '{"top_k": 50, "hist_item": [[10, 999, 20], [], [999]]}'
    status, (first, *rest) = world.post("/rec/recall", body, JSON)
    assert (status, first[0], sorted(first), rest) == (200, 30, [30, 40, 50, 60], [[], []]), "without 10 and 20"
    assert world.post("/rec/recall", '{"hist_item": [[60]]}', JSON) == (200, [[50, 40]]), "recall.top_k"
    assert world.post("/rec/recall", '{"hist_item": []}', JSON) == (200, [])


def test_histories_have_any_length(world: World) -> None:
    """The newest items count of one that is longer than service.max_history."""
    world.parts.writes.bulk.insert()
    long = [10] * 100 + [40, 50, 60, 40]
    newest = world.post("/rec/recall", '{"top_k": 9, "hist_item": [[40, 50, 60, 40]]}', JSON)
    assert sorted(newest[1][0]) == [10, 20, 30]
    assert world.post("/rec/recall", f'{{"top_k": 9, "hist_item": [{long}]}}', JSON) == newest


def test_nothing_is_recalled_from_a_collection_without_its_items(world: World) -> None:
    status, problem = world.post("/rec/recall", '{"hist_item": [[10]]}', JSON)
    assert (status, problem["type"]) == (503, "urn:mindstream:problem:unavailable")
    assert world.post("/rec/recall", '{"hist_item": [[]]}', JSON) == (200, [[]]), "needs no search"


def test_what_a_body_does_not_say_is_as_configured(tmp_path: Path) -> None:
    world = ServiceWorld(tmp_path, "recall.top_k=3", "service.max_top_k=2", "recall.filter_seen=false")
    assert world.client.post("/rec/recall", json={"hist_item": [[10]]}).json() == [[10, 20]]


def test_what_equals_the_limits_is_accepted(world: World) -> None:
    world.parts.writes.bulk.insert()
    status, lists = world.post("/rec/recall", '{"hist_item": [[10], [20], [30]], "top_k": 60}', JSON)
    assert (status, list(map(len, lists))) == (200, [5, 5, 5])


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ('{"hist_item": [[1], [1], [1], [1]]}', "service.max_users"),
        ('{"hist_item": [[1]], "top_k": 61}', "service.max_top_k"),
    ],
)
def test_more_than_the_limits_is_refused(world: World, body: str, limit: str) -> None:
    status, problem = world.post("/rec/recall", body, JSON)
    assert (status, limit in problem["detail"]) == (422, True)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "[]",
        '{"hist_item": [1]}',
        '{"hist_item": [["1"]]}',
        '{"hist_item": [[true]]}',
        '{"hist_item": [[9223372036854775808]]}',
        '{"hist_item": [[1]], "top_k": 0}',
    ],
)
def test_other_bodies_are_refused(world: World, body: str) -> None:
    status, problem = world.post("/rec/recall", body, JSON)
    assert (status, problem["type"]) == (422, "urn:mindstream:problem:invalid-request")


WRITING = pytest.mark.parametrize("path", ["/rec/insert_data", "/qa/drop"])


@WRITING
def test_writing_needs_the_admin_token(world: World, path: str) -> None:
    assert world.post(path)[0] == 401
    assert world.post(path, headers={"Authorization": "Bearer another-token-of-tests"})[0] == 401
    assert world.items.messages == []


@WRITING
def test_a_call_while_one_is_running_is_refused(world: World, path: str) -> None:
    answers: list[tuple[int, Any]] = []

    def call_again() -> None:
        world.items.on_ask = lambda: None
        answers.append(world.post(path, headers=ADMIN))

    world.items.on_ask = call_again
    assert world.post("/rec/insert_data", headers=ADMIN) == (200, 6)
    ((status, problem),) = answers
    assert (status, problem["type"]) == (409, "urn:mindstream:problem:already-running")


@WRITING
def test_an_item_worker_that_does_not_work_is_named_with_what_is_there(world: World, path: str) -> None:
    world.parts.writes.bulk.insert()
    world.items.step = 0
    status, problem = world.post(path, headers=ADMIN)
    assert (status, problem["type"]) == (504, "urn:mindstream:problem:items-missing")
    for part in ("holds 6 items", "6 messages left", "--agents items"):
        assert part in problem["detail"]


def test_items_of_another_model_are_not_dropped(world: World) -> None:
    world.parts.writes.bulk.insert()
    world.items.publish(10, "m2")
    status, problem = world.post("/qa/drop", headers=ADMIN)
    assert (status, problem["type"]) == (409, "urn:mindstream:problem:other-model")
    assert world.post("/rec/count") == (200, 6)


@WRITING
def test_an_unavailable_kafka_is_no_defect(world: World, path: str) -> None:
    world.parts.writes.bulk.insert()
    world.items.error = TransientError("Kafka", "for the test")
    status, problem = world.post(path, headers=ADMIN)
    assert (status, problem["detail"].startswith("Kafka ")) == (503, True)
    world.items.error = None
    assert world.post(path, headers=ADMIN)[0] == 200
