"""The routes that read, over a memory index."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.messages.recommendations import Recommendation
from streams.ports import ReplicaLag
from streams.service.bodies import RecommendationsAnswer
from streams.service.ports import UserHistory
from streams.service.recommending import Recommended, Wanted
from tests.unit.streams.service.world import ServiceWorld

#: For bodies that the client cannot encode: with half of a surrogate pair.
_JSON = {"Content-Type": "application/json"}


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> ServiceWorld:
    return ServiceWorld(tmp_path)


def _ask(world: ServiceWorld, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    answer = world.client.post("/v1/recommendations", json={"requests": list(requests)})
    assert answer.status_code == 200, answer.text
    RecommendationsAnswer.model_validate(answer.json(), strict=True)
    assert answer.json()["model_version"] == world.parts.artifact.model_version
    answers: list[dict[str, Any]] = answer.json()["answers"]
    return answers


def _items(answer: dict[str, Any]) -> list[int]:
    return [item["item_id"] for item in answer["items"]]


def _remember(world: ServiceWorld, user: str, *items: int, updated_at: float | None = 1000.0) -> None:
    world.histories.users[user] = UserHistory(np.array(items, dtype=np.int64), 3, 14, updated_at)


def test_each_user_of_a_request_gets_an_answer_in_order(world: ServiceWorld) -> None:
    near_ten, near_forty, empty = _ask(world, {"history": [10]}, {"history": [40, 50], "top_k": 1}, {"history": []})
    assert _items(near_ten)[:2] == [20, 30]
    assert _items(near_forty) == [60]
    assert (near_ten["source"], near_ten["reason"], near_ten["history_length"]) == ("interests", None, 1)
    assert (empty["source"], empty["reason"], empty["items"]) == ("none", "empty_history", [])


def test_what_is_seen_or_excluded_is_left_out(world: ServiceWorld) -> None:
    seen, excluded = _ask(
        world,
        {"history": [10], "exclude_seen": False, "top_k": 2},
        {"history": [10], "exclude": [20], "top_k": 2},
    )
    assert _items(seen) == [10, 20]
    assert _items(excluded)[0] == 30 and not {10, 20} & set(_items(excluded))


def test_unknown_items_are_skipped_and_named(world: ServiceWorld) -> None:
    some, none = _ask(world, {"history": [999, 10, 0, 999]}, {"history": [999]})
    assert some["unknown_items"] == [999, 0] and _items(some)[0] == 20 and some["history_length"] == 4
    assert (none["source"], none["reason"], none["unknown_items"]) == ("none", "no_known_item", [999])


def test_a_session_comes_after_the_stored_history(world: ServiceWorld) -> None:
    _remember(world, "42", 10)
    _remember(world, "jane/doe", 40, updated_at=None)
    by_id, both, other, unknown, session_only = _ask(
        world,
        {"user_id": 42},
        {"user_id": "42", "history": [40]},
        {"user_id": "jane/doe"},
        {"user_id": "somebody"},
        {"user_id": "somebody", "history": [10]},
    )
    assert _items(by_id) == _items(_ask(world, {"history": [10]})[0])
    assert _items(both) == _items(_ask(world, {"history": [10, 40]})[0]) and both["history_length"] == 2
    assert by_id["history_age_s"] > 1e9 and other["history_age_s"] is None
    assert (unknown["source"], unknown["reason"], unknown["items"]) == ("none", "unknown_user", [])
    assert session_only["source"] == "interests" and session_only["history_age_s"] is None


def test_the_clicks_of_a_session_are_the_newest_ones(world: ServiceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    _remember(world, "42", 10, 20)
    asked: list[list[int]] = []
    recommend = world.parts.recommender.recommend

    def observed(users: Sequence[Wanted]) -> Awaitable[Sequence[Recommended]]:
        asked.extend(user.history.tolist() for user in users)
        return recommend(users)

    monkeypatch.setattr(world.parts.recommender, "recommend", observed)
    _ask(world, {"user_id": 42, "history": [40, 30]})
    assert asked == [[10, 20, 40, 30]]


def test_a_user_whose_stored_history_is_empty_is_not_unknown(world: ServiceWorld) -> None:
    _remember(world, "42")
    assert _ask(world, {"user_id": 42})[0]["reason"] == "empty_history"


def test_seen_items_are_left_out_as_configured(tmp_path: Path) -> None:
    world = ServiceWorld(tmp_path, "recall.filter_seen=false")
    assert _items(_ask(world, {"history": [10], "top_k": 2})[0]) == [10, 20]


def test_no_user_is_called_unknown_before_the_copy_is_complete(world: ServiceWorld) -> None:
    world.histories.now = world.newest.now = ReplicaLag(5, None, caught_up=False)
    _remember(world, "42", 10)
    assert _ask(world, {"user_id": 42})[0]["source"] == "interests"
    for method, path in (("GET", "/v1/users/43/history"), ("GET", "/v1/users/43/recommendations")):
        answer = world.client.request(method, path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), path
    asked = world.client.post("/v1/recommendations", json={"requests": [{"user_id": 43}]})
    assert asked.status_code == 503 and "not complete" in asked.json()["detail"]


@pytest.mark.parametrize(
    ("overrides", "body", "field"),
    [
        (["max_users=1"], {"requests": [{}, {}]}, "body.requests"),
        (["max_history=2"], {"requests": [{"history": [1, 2, 3]}]}, "body.requests.0.history"),
        (["max_exclude=2"], {"requests": [{"exclude": [1, 2, 3]}]}, "body.requests.0.exclude"),
        (["max_top_k=2"], {"requests": [{"top_k": 3}]}, "body.requests.0.top_k"),
        ([], {"requests": [{"top_k": 0}]}, "body.requests.0.top_k"),
        ([], {"requests": [{"histroy": [1]}]}, "body.requests.0.histroy"),
        ([], {"requests": [{"\ud800": [1]}]}, "body"),
        ([], {"requests": [{"history": [2**63]}]}, "body.requests.0.history.0"),
        ([], {"requests": [{"history": ["10"]}]}, "body.requests.0.history.0"),
        ([], {"requests": [{"history": [True]}]}, "body.requests.0.history.0"),
        ([], {}, "body.requests"),
    ],
)
def test_limits_and_types_are_refused_with_the_field(
    tmp_path: Path, overrides: list[str], body: dict[str, Any], field: str
) -> None:
    world = ServiceWorld(tmp_path, *(f"service.{override}" for override in overrides))
    answer = world.client.post("/v1/recommendations", content=json.dumps(body), headers=_JSON)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    if overrides:
        assert error["limit"] == int(overrides[0].split("=")[1])
        assert f"service.{overrides[0].split('=')[0]}" in answer.json()["detail"]


def test_what_equals_a_limit_is_accepted(tmp_path: Path) -> None:
    limits = ("max_users=2", "max_history=2", "max_exclude=2", "max_top_k=2")
    world = ServiceWorld(tmp_path, *(f"service.{limit}" for limit in limits))
    body = {"requests": [{"history": [10, 20], "exclude": [30, 40], "top_k": 2}, {"history": [10]}]}
    first, second = world.client.post("/v1/recommendations", json=body).json()["answers"]
    assert (len(first["items"]), len(second["items"])) == (2, 2), "also where recall.top_k is larger"
    assert world.client.get("/v1/items/10/similar?top_k=2").status_code == 200


@pytest.mark.parametrize("copy", ["histories", "newest"])
def test_a_copy_that_is_complete_only_after_it_was_read_cannot_say_that_a_user_is_unknown(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch, copy: str
) -> None:
    replica = getattr(world, copy)
    get = replica.get

    def read_then_complete(*wanted: object) -> object:
        found = get(*wanted)
        replica.now = ReplicaLag(0, 0.5, caught_up=True)
        return found

    monkeypatch.setattr(replica, "get", read_then_complete)
    calls: dict[str, list[tuple[str, str, Any]]] = {
        "histories": [
            ("GET", "/v1/users/43/history", None),
            ("POST", "/v1/recommendations", {"requests": [{"user_id": 43}]}),
        ],
        "newest": [("GET", "/v1/users/43/recommendations", None)],
    }
    for method, path, body in calls[copy]:
        replica.now = ReplicaLag(5, None, caught_up=False)
        assert world.client.request(method, path, json=body).status_code == 503, path


def test_a_history_of_a_clock_that_is_ahead_has_no_negative_age(world: ServiceWorld) -> None:
    _remember(world, "42", 10, updated_at=1e11)
    assert _ask(world, {"user_id": 42})[0]["history_age_s"] == 0.0


@pytest.mark.parametrize("user_id", ["", "x" * 257, "é" * 129, "\ud800", 1.5, None, 2**64])
def test_what_can_be_no_user_is_refused(world: ServiceWorld, user_id: object) -> None:
    answer = world.client.post(
        "/v1/recommendations", content=json.dumps({"requests": [{"user_id": user_id}]}), headers=_JSON
    )
    assert answer.status_code == (200 if user_id is None else 422)
    if isinstance(user_id, str) and user_id.isprintable() and user_id:
        assert world.client.get(f"/v1/users/{user_id}/history").status_code == 422


def test_stored_histories_and_recommendations_are_shown(world: ServiceWorld) -> None:
    _remember(world, "jane/doe", 10, 20)
    assert world.client.get("/v1/users/jane%2Fdoe/history").json() == {
        "user_id": "jane/doe",
        "items": [10, 20],
        "source": {"partition": 3, "offset": 14},
        "updated_at": 1000.0,
    }
    world.newest.users["7"] = Recommendation(7, [20, 30], [0.9, 0.5], [0, 1], "m1", 4, 3, 14, 1000.0, 1001.0)
    world.newest.users["jane/doe"] = world.newest.users["7"]
    assert world.client.get("/v1/users/jane%2Fdoe/recommendations").status_code == 200
    newest = world.client.get("/v1/users/7/recommendations").json()
    assert newest["items"][1] == {"item_id": 30, "score": 0.5, "interest": 1}
    assert (newest["model_version"], newest["source"], newest["ts"]) == ("m1", {"partition": 3, "offset": 14}, 1001.0)
    for path in ("/v1/users/8/history", "/v1/users/8/recommendations"):
        assert world.client.get(path).status_code == 404


def test_items_are_shown_with_their_source_and_neighbours(world: ServiceWorld) -> None:
    assert world.client.get("/v1/items/10").json() == {
        "item_id": 10,
        "model_version": world.parts.artifact.model_version,
        "trained": True,
        "source": {"partition": 0, "offset": 7},
    }
    similar = world.client.get("/v1/items/10/similar?top_k=2").json()["items"]
    assert [item["item_id"] for item in similar] == [20, 30]
    assert [str(item["score"]) for item in similar] == [str(np.float32(item["score"])) for item in similar]
    world.memory.delete(np.array([60]))
    assert "publish the items" in world.client.get("/v1/items/60").json()["detail"]
    assert world.client.get("/v1/items/11").status_code == 404
    assert world.client.get("/v1/items/11/similar").status_code == 404
    assert world.client.get("/v1/items/10/similar?top_k=501").json()["errors"][0]["limit"] == 500
    assert world.client.get("/v1/items/x").status_code == 422


def test_a_fault_of_milvus_is_503_until_it_answers(world: ServiceWorld) -> None:
    world.index.failures = 1
    body = {"requests": [{"history": [10]}]}
    answer = world.client.post("/v1/recommendations", json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "milvus" in world.client.get("/readyz").json()["missing"][0]
    assert world.client.post("/v1/recommendations", json=body).status_code == 200
    assert world.client.get("/readyz").status_code == 200


def test_requests_at_the_same_time_share_a_search(world: ServiceWorld) -> None:
    async def ask() -> None:
        from httpx2 import ASGITransport, AsyncClient

        async with AsyncClient(transport=ASGITransport(world.app), base_url="http://localhost") as client:
            body = {"requests": [{"history": [10]}, {"history": [40]}]}
            answers = await asyncio.gather(*(client.post("/v1/recommendations", json=body) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}

    asyncio.run(ask())
    assert world.registry.get_sample_value("mindstream_service_batch_users_sum") == 40
    batches = world.registry.get_sample_value("mindstream_service_batch_users_count")
    assert batches is not None and batches <= 10
    assert world.registry.get_sample_value("mindstream_service_queue_users") == 0


def test_reading_needs_the_token_if_there_is_one_and_probes_need_none(tmp_path: Path) -> None:
    token = "read-token-of-16-characters"  # noqa: S105 - of this test
    world = ServiceWorld(tmp_path, f"service.read_token={token}")
    paths = ["/v1/users/1/history", "/v1/users/1/recommendations", "/v1/items/10", "/v1/items/10/similar"]
    for path in paths:
        assert world.client.get(path).status_code == 401
        assert world.client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code in (200, 404)
    assert world.client.post("/v1/recommendations", json={"requests": []}).status_code == 401
    for path in ("/healthz", "/readyz", "/metrics"):
        assert world.client.get(path).status_code == 200
    assert "mindstream_service_requests_total" in world.client.get("/metrics").text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommendations", {"requests": [0] * 100_000}),
        ("/v1/recommendations", {"requests": [{}] * 100_000}),
        ("/v1/recommendations", {"requests": [{"history": [""] * 100_000}]}),
        ("/rec/recall", {"hist_item": [0] * 100_000}),
        ("/rec/recall", {"hist_item": [[]] * 100_000}),
    ],
)
def test_validation_ends_early_in_a_large_body(world: ServiceWorld, path: str, body: Any) -> None:
    """Otherwise, the event loop would make an error text for each of a million elements, and answer no one."""
    problem = world.client.post(path, json=body).json()
    assert problem["status"] == 422 and len(problem["errors"]) == 1
