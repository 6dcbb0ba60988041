"""The routes that read: recommendations, histories, items, health and metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Path, Query
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from configs.schema import ServiceConfig
from model.arrays import IdVector
from streams.ports import ReplicaLag
from streams.service.bodies import (
    HistoryAnswer,
    ItemAnswer,
    ItemId,
    LiveAnswer,
    NewestAnswer,
    ReadyAnswer,
    RecommendationRequest,
    RecommendationsAnswer,
    RecommendationsRequest,
    ScoredItem,
    SimilarAnswer,
    SimilarItem,
    Source,
    UserText,
    shortest,
)
from streams.service.direct import DirectRoute
from streams.service.parts import ServiceParts
from streams.service.ports import UserHistory
from streams.service.problems import Problem, declared, limit_exceeded, unavailable
from streams.service.recommending import Reason, Recommended, Wanted, wanted

#: Statuses of errors that every route may answer with.
_REFUSED = (400, 401, 403, 422, 503)

UserPath = Annotated[UserText, Path(description="The text of the user's id.")]
ItemPath = Annotated[ItemId, Path(description="The item's id.")]


def health_router(parts: ServiceParts) -> APIRouter:
    """Return the routes of probes. They need no token and show no user."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Does the process run?")
    async def healthz() -> LiveAnswer:
        return LiveAnswer(live=True)

    unready: dict[int | str, dict[str, Any]] = {503: {"model": ReadyAnswer, "description": "Something is missing."}}

    @router.get("/readyz", summary="Can requests be answered?", responses=unready, response_model=ReadyAnswer)
    async def readyz() -> Response:
        answer = parts.health.ready()
        return Response(answer.model_dump_json(), 200 if answer.ready else 503, media_type="application/json")

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(parts.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def reading_router(parts: ServiceParts) -> APIRouter:
    """Return the routes that need the scope `read`."""
    router = _router(parts, APIRoute)
    _add_users(router, parts)
    _add_items(router, parts)
    return router


def recommending_router(parts: ServiceParts) -> APIRouter:
    """Return the route that recommends. It needs the scope `read`."""
    router = _router(parts, DirectRoute)
    _add_recommendations(router, parts)
    return router


def _router(parts: ServiceParts, route_class: type[APIRoute]) -> APIRouter:
    readable = Depends(parts.access.requires("read"))
    return APIRouter(prefix="/v1", dependencies=[readable], tags=["read"], route_class=route_class)


def _add_recommendations(router: APIRouter, parts: ServiceParts) -> None:
    version = parts.artifact.model_version

    @router.post(
        "/recommendations",
        summary="Recommend items to users",
        responses=declared(*_REFUSED, 413),
        response_model=RecommendationsAnswer,
    )
    async def recommend(body: RecommendationsRequest) -> Response:
        _check_limits(parts.config, body.requests)
        stored = await _stored_histories(parts, body.requests)
        users = [_wanted(parts.config, *user) for user in zip(body.requests, stored, strict=True)]
        found = await parts.recommender.recommend(users)
        now = time.time()
        answers = [_answer(*user, now) for user in zip(body.requests, stored, users, found, strict=True)]
        # Packed at once: a model object for each item would take longer than the search.
        return Response(orjson.dumps({"model_version": version, "answers": answers}), media_type="application/json")


def _check_limits(config: ServiceConfig, requests: Sequence[RecommendationRequest]) -> None:
    limits = config.service
    if len(requests) > limits.max_users:
        raise limit_exceeded("body.requests", len(requests), limits.max_users, "max_users")
    for number, request in enumerate(requests):
        place = f"body.requests.{number}"
        if len(request.history) > limits.max_history:
            raise limit_exceeded(f"{place}.history", len(request.history), limits.max_history, "max_history")
        if len(request.exclude) > limits.max_exclude:
            raise limit_exceeded(f"{place}.exclude", len(request.exclude), limits.max_exclude, "max_exclude")
        if request.top_k is not None and request.top_k > limits.max_top_k:
            raise limit_exceeded(f"{place}.top_k", request.top_k, limits.max_top_k, "max_top_k")


async def _stored_histories(parts: ServiceParts, requests: Sequence[RecommendationRequest]) -> list[UserHistory | None]:
    """Return the stored history of each request with a user id, None for the others."""
    stored: list[UserHistory | None] = [None] * len(requests)
    rows = [row for row, request in enumerate(requests) if request.user_id is not None]
    if rows:
        user_ids = [str(requests[row].user_id) for row in rows]
        lag = parts.histories.lag()
        found = await parts.local.call(lambda: parts.histories.get(user_ids))
        if None in found:
            _check_complete(lag, "histories")
        for row, history in zip(rows, found, strict=True):
            stored[row] = history
    return stored


def _check_complete(lag: ReplicaLag, name: str) -> None:
    """Raise a problem if a copy was not complete before it was read, and so cannot say that something is missing."""
    if not lag.caught_up:
        raise unavailable(f"the copy of {name} is not complete yet: {lag.messages} messages are to be read; try again")


def _wanted(config: ServiceConfig, request: RecommendationRequest, stored: UserHistory | None) -> Wanted:
    session = np.array(request.history, dtype=np.int64)
    top_k = min(config.recall.top_k, config.service.max_top_k) if request.top_k is None else request.top_k
    exclude_seen = config.recall.filter_seen if request.exclude_seen is None else request.exclude_seen
    history = session if stored is None else np.concatenate([stored.items, session])
    return wanted(history, top_k, request.exclude, exclude_seen=exclude_seen)


def _answer(
    request: RecommendationRequest, stored: UserHistory | None, user: Wanted, found: Recommended, now: float
) -> dict[str, Any]:
    """Return a `RecommendationAnswer`."""
    reason: Reason | None = found.reason
    if reason == "empty_history" and request.user_id is not None and stored is None:
        reason = "unknown_user"
    items: list[dict[str, Any]] = []
    if found.candidates is not None:
        ids, scores, interests = found.candidates
        columns = zip(ids.tolist(), shortest(scores), interests.tolist(), strict=True)
        items = [{"item_id": i, "score": s, "interest": k} for i, s, k in columns]
    return {
        "items": items,
        "source": "none" if found.candidates is None else "interests",
        "reason": reason,
        "unknown_items": found.unknown,
        "history_length": len(user.history),
        "history_age_s": None if stored is None else _age_s(stored, now),
    }


def _age_s(stored: UserHistory, now: float) -> float | None:
    return None if stored.updated_at is None else max(0.0, now - stored.updated_at)


def _add_users(router: APIRouter, parts: ServiceParts) -> None:
    # `:path`, because the id of a user may have slashes.
    @router.get("/users/{user_id:path}/history", summary="The history of a user", responses=declared(*_REFUSED, 404))
    async def history(user_id: UserPath) -> HistoryAnswer:
        lag = parts.histories.lag()
        (stored,) = await parts.local.call(lambda: parts.histories.get([user_id]))
        if stored is None:
            _check_complete(lag, "histories")
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-user", "there is no history of this user")
        source = Source(partition=stored.partition, offset=stored.offset)
        items: IdVector = stored.items
        return HistoryAnswer(user_id=user_id, items=items.tolist(), source=source, updated_at=stored.updated_at)

    @router.get(
        "/users/{user_id:path}/recommendations",
        summary="The newest recommendation of a user, as published by a worker",
        responses=declared(*_REFUSED, 404),
    )
    async def recommendations(user_id: UserPath) -> NewestAnswer:
        lag = parts.newest.lag()
        newest = await parts.local.call(lambda: parts.newest.get(user_id))
        if newest is None:
            _check_complete(lag, "recommendations")
            raise Problem(HTTPStatus.NOT_FOUND, "no-recommendation", "there is no recommendation for this user")
        columns = zip(newest.item_ids, newest.scores, newest.interests, strict=True)
        return NewestAnswer(
            user_id=user_id,
            items=[ScoredItem(item_id=int(i), score=float(s), interest=int(k)) for i, s, k in columns],
            model_version=newest.model_version,
            history_length=newest.history_length,
            source=Source(partition=newest.source_partition, offset=newest.source_offset),
            click_ts=newest.click_ts,
            ts=newest.ts,
        )


def _add_items(router: APIRouter, parts: ServiceParts) -> None:
    artifact, limits = parts.artifact, parts.config.service

    @router.get("/items/{item_id}", summary="An item that can be recalled", responses=declared(*_REFUSED, 404))
    async def item(item_id: ItemPath) -> ItemAnswer:
        ids = np.array([item_id], dtype=np.int64)
        sources = await parts.milvus.call(lambda: parts.index.sources(ids))
        trained = bool(artifact.rows(ids)[0] >= 0)
        if item_id not in sources:
            more = "; the model was trained on it: publish the items" if trained else ""
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-item", f"the index does not have this item{more}")
        partition, offset = sources[item_id]
        source = None if partition < 0 else Source(partition=partition, offset=offset)
        return ItemAnswer(item_id=item_id, model_version=artifact.model_version, trained=trained, source=source)

    @router.get("/items/{item_id}/similar", summary="Items near to an item", responses=declared(*_REFUSED, 404))
    async def similar(
        item_id: ItemPath,
        top_k: Annotated[int, Query(ge=1, description="Number of items (at most service.max_top_k).")] = 20,
    ) -> SimilarAnswer:
        if top_k > limits.max_top_k:
            raise limit_exceeded("query.top_k", top_k, limits.max_top_k, "max_top_k")
        found = await parts.recommender.calls.in_thread(lambda: parts.engine.similar(item_id, top_k))
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-item", "this item has no vector")
        ids, scores = found
        pairs = zip(ids.tolist(), shortest(scores), strict=True)
        items = [SimilarItem(item_id=other, score=score) for other, score in pairs]
        return SimilarAnswer(item_id=item_id, model_version=artifact.model_version, items=items)
