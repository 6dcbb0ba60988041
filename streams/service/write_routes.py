"""Routes that write clicks and items: `POST /v1/clicks`, `PUT` and `DELETE /v1/items/{id}`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from streams.errors import BadMessage
from streams.messages.clicks import Click
from streams.messages.items import Item
from streams.ports import Output
from streams.service.bodies import ItemId, Source
from streams.service.parts import ServiceParts
from streams.service.problems import RETRY_AFTER_S, Problem, declared, limit_exceeded
from streams.service.recallable import RecallableItems
from streams.service.shared_producer import NotAcknowledged, SharedProducer, Written
from streams.service.write_bodies import ClickBody, ClicksBody, ItemBody, WrittenClicks, WrittenItem
from streams.service.writing import ClickMessages, OtherModelsVector

_ERRORS = declared(400, 401, 403, 413, 422, 503)
_ItemPath = Annotated[ItemId, Path(description="The item.")]
_Normalise = Annotated[bool, Query(description="Divide the embedding by its norm.")]
_Wait = Annotated[bool, Query(description="Answer when searches find the item.")]


def writing_router(parts: ServiceParts) -> APIRouter:
    """Return the routes that need the scope `write`."""
    writes, max_clicks = parts.writes, parts.config.service.max_clicks
    router = APIRouter(prefix="/v1", dependencies=[Depends(parts.access.requires("write"))], tags=["write"])

    @router.post("/clicks", summary="Write clicks", status_code=202, responses=_ERRORS)
    async def write_clicks(body: ClicksBody) -> WrittenClicks:
        """Answer when Kafka has acknowledged one click, or a list of clicks. If one is refused, none is written."""
        clicks = body if isinstance(body, list) else [body]
        if len(clicks) > max_clicks:
            raise limit_exceeded("body", len(clicks), max_clicks, "max_clicks")
        outputs = _click_outputs(writes.clicks, clicks)
        return WrittenClicks(written=[_place(written) for written in await _write(writes.click_producer, outputs)])

    @router.put(
        "/items/{item_id}",
        summary="Publish an item, or change it",
        status_code=202,
        responses=_ERRORS | declared(409) | {200: {"model": WrittenItem}},
    )
    async def put_item(
        item_id: _ItemPath, body: ItemBody, response: Response, normalise: _Normalise = False, wait: _Wait = False
    ) -> WrittenItem:
        """Answer with status 202 when Kafka has acknowledged it, 200 when searches find it."""
        try:
            item, output = writes.items.item(item_id, **body.model_dump(), normalise=normalise)
        except OtherModelsVector as error:
            raise Problem(HTTPStatus.CONFLICT, "other-model", str(error)) from None
        (written,) = await _write(writes.item_producer, [output])
        after_s = await _recallable_after_s(writes.recallable, item, written) if wait else None
        if after_s is not None:
            response.status_code = HTTPStatus.OK
        return WrittenItem(item_id=item_id, written=_place(written), recallable_after_s=after_s)

    @router.delete("/items/{item_id}", summary="Remove an item", status_code=202, responses=_ERRORS)
    async def delete_item(item_id: _ItemPath) -> WrittenItem:
        """Answer when Kafka has acknowledged the removal, whether the item exists or not."""
        (written,) = await _write(writes.item_producer, [writes.items.removal(item_id)])
        return WrittenItem(item_id=item_id, written=_place(written))

    return router


async def _write(producer: SharedProducer, outputs: Sequence[Output]) -> list[Written]:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    try:
        return await producer.write(outputs)
    except NotAcknowledged as error:
        kind = "maybe-written" if error.maybe_written else "not-written"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, kind, str(error), headers) from None
    except asyncio.CancelledError:  # the service stops before Kafka has answered
        detail = str(NotAcknowledged("this service is being stopped", maybe_written=True))
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "maybe-written", detail, headers) from None


async def _recallable_after_s(recallable: RecallableItems, item: Item, written: Written) -> float | None:
    try:
        return await recallable.wait(item, written)
    except asyncio.CancelledError:  # the service stops; the item is written nevertheless
        return None


def _place(written: Written) -> Source:
    return Source(partition=written.partition, offset=written.offset)


def _click_outputs(messages: ClickMessages, clicks: Sequence[ClickBody]) -> list[Output]:
    """Return the messages of clicks; raise BadMessage if one of them would become a dead letter."""
    now, outputs = time.time(), []
    for number, click in enumerate(clicks):
        ts = now if click.ts is None else click.ts
        try:
            outputs.append(messages.click(Click(click.user_id, click.item_id, ts, click.event_id)))
        except BadMessage as error:
            if len(clicks) == 1:
                raise
            raise BadMessage(error.reason, f"click {number} (counted from 0): {error.detail}") from None
    return outputs
