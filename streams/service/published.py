"""The routes of the published MIND and Milvus demonstration, with its paths, bodies and answers.

Its histories and answers have no scores and no reasons; `/v1/recommendations` has both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response

from configs.schema import ServiceConfig
from streams.service.bodies import MAX_USERS, FirstFault, ItemIds, RequestBody
from streams.service.bulk import BulkRunning, ItemsMissing, OtherModelsItems
from streams.service.direct import DirectRoute
from streams.service.parts import ServiceParts
from streams.service.problems import RETRY_AFTER_S, Problem, declared, limit_exceeded
from streams.service.recommending import Wanted, wanted

#: Statuses of errors that every route may answer with.
_REFUSED = (400, 401, 403, 422, 503)


class RecallBody(RequestBody):
    """Histories of users, and the number of items wanted for each."""

    top_k: int | None = Field(
        default=None, ge=1, description="Most items in each list; null = recall.top_k.", examples=[50]
    )
    hist_item: Annotated[list[ItemIds], FirstFault()] = Field(
        max_length=MAX_USERS,
        description="The items that each user has clicked, oldest first; histories of any length.",
        examples=[[[43, 23, 65, 675], [675, 3456, 8654]]],
    )


def recall_router(parts: ServiceParts) -> APIRouter:
    """Return the route that recalls. It needs the scope `read`."""
    readable = Depends(parts.access.requires("read"))
    router = APIRouter(tags=["published"], dependencies=[readable], route_class=DirectRoute)

    @router.post(
        "/rec/recall",
        summary="Recall items for histories",
        responses=declared(*_REFUSED, 413),
        response_model=list[list[int]],
    )
    async def recall(body: RecallBody) -> Response:
        """Answer with a list of item ids for each history, best first; empty if no item of the history is known."""
        found = await parts.recommender.recommend(_wanted(parts.config, body))
        lists = [[] if one.candidates is None else one.candidates.item_ids.tolist() for one in found]
        return Response(orjson.dumps(lists), media_type="application/json")

    return router


def published_router(parts: ServiceParts) -> APIRouter:
    """Return the other routes; one needs the scope `read`, two `admin`."""
    router = APIRouter(tags=["published"])
    readable = [Depends(parts.access.requires("read"))]
    administrable = [Depends(parts.access.requires("admin"))]

    @router.post("/rec/count", summary="Count the items", dependencies=readable, responses=declared(*_REFUSED))
    async def count() -> int:
        """Answer with the number of items in the collection."""
        return (await parts.milvus.call(parts.index.describe)).count

    @router.post(
        "/rec/insert_data",
        summary="Put the model's items into the collection",
        dependencies=administrable,
        responses=declared(*_REFUSED, 409, 504),
    )
    async def insert_data() -> int:
        """Answer with the number of the model's items when searches find all of them."""
        return await _bulk(parts.writes.bulk.insert)

    @router.post(
        "/qa/drop",
        summary="Remove all items from the collection",
        dependencies=administrable,
        responses=declared(*_REFUSED, 409, 504),
    )
    async def drop() -> int:
        """Answer with the number of removed items when the collection holds none of them any more."""
        return await _bulk(parts.writes.bulk.remove_all)

    return router


def _wanted(config: ServiceConfig, body: RecallBody) -> list[Wanted]:
    """Return what the users of a request want.

    Raises:
        Problem: there are too many, or they want too many items.
    """
    limits = config.service
    top_k = min(config.recall.top_k, limits.max_top_k) if body.top_k is None else body.top_k
    if len(body.hist_item) > limits.max_users:
        raise limit_exceeded("body.hist_item", len(body.hist_item), limits.max_users, "max_users")
    if top_k > limits.max_top_k:
        raise limit_exceeded("body.top_k", top_k, limits.max_top_k, "max_top_k")
    newest = [np.array(history[-limits.max_history :], dtype=np.int64) for history in body.hist_item]
    return [wanted(history, top_k, (), exclude_seen=config.recall.filter_seen) for history in newest]


async def _bulk(call: Callable[[], int]) -> int:
    """Return the result of a call of `BulkItems`, which may take minutes, in a thread of its own.

    Raises:
        Problem: an error that callers can do something about.
    """
    try:
        return await asyncio.to_thread(call)
    except BulkRunning as error:
        raise Problem(HTTPStatus.CONFLICT, "already-running", str(error)) from None
    except OtherModelsItems as error:
        raise Problem(HTTPStatus.CONFLICT, "other-model", str(error)) from None
    except ItemsMissing as error:
        raise Problem(HTTPStatus.GATEWAY_TIMEOUT, "items-missing", str(error)) from None
    except asyncio.CancelledError:  # the service stops before Kafka or Milvus has answered
        detail = "this service is being stopped; some of the messages may have been written: call again"
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "maybe-written", detail, headers) from None
