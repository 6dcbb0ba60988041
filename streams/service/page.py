"""The page at `/`: its files, and what it reads beside the public routes, which is no part of the public contract."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field, StringConstraints

from model.arrays import FloatMatrix, IdVector
from model.data.limits import fault_of_item_id
from model.explanation.explain import Explanation, Recalled
from streams.messages.recommendations import Recommendation
from streams.recall.engine import RecallEngine, RecallSteps
from streams.service.batching import SharedCalls
from streams.service.catalogue import Catalogue
from streams.service.explanation import Explainer
from streams.service.item_map import MapInBackground
from streams.service.live import LiveStream
from streams.service.ports import NewestRecommendations, UserHistories, UserHistory
from streams.service.problems import Problem, unavailable
from streams.service.threads import ThreadCalls

STATIC = Path(__file__).parent / "static"
#: Items in each list of the page, and in a list of found items.
LIST_LENGTH, FOUND = 20, 24
#: Clicks of a made-up history that are accepted.
MAX_HISTORY = 1000
#: Seconds between two states that a browser gets.
_STATE_INTERVAL_S = 1.0
#: Only the page's own files, and no request to another host: neither by mistake nor by a title that contains a script.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_NOT_STORED = {"Cache-Control": "no-store"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}


#: What runs while an app does; it gets the app.
Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Page:
    """Parts of the page.

    Attributes:
        model_version, history_length: of the engine's model, the latter in clicks.
        catalogue: the model's items. engine: recalls, and explains through `explainer`; both only through `calls`.
        histories, newest: of the users of the stream; read through `local`.
        live: figures and events. map: of the items.
    """

    model_version: str
    history_length: int
    catalogue: Catalogue
    engine: RecallEngine
    explainer: Explainer
    calls: SharedCalls[Any, Any]
    local: ThreadCalls
    histories: UserHistories
    newest: NewestRecommendations
    live: LiveStream
    map: MapInBackground


#: An item id as text: JavaScript has no integers of 64 bits.
_ItemText = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,19}$")]


class MadeUpHistory(BaseModel):
    """Item ids, oldest first."""

    history: Annotated[list[_ItemText], Field(max_length=MAX_HISTORY)]


def routes(page: Page, readable: Callable[..., object], lifespan: Lifespan | None = None) -> APIRouter:
    """Return the routes of the page.

    Args:
        page: what it shows.
        readable: dependency that refuses requests without the right to read; the files need none.
        lifespan: runs what the page needs while the service runs.
    """
    router = APIRouter(include_in_schema=False, lifespan=lifespan)

    @router.get("/")
    def index() -> FileResponse:
        return _file("index.html")

    @router.get("/page/static/{name}")
    def static(name: str) -> FileResponse:
        return _file(name)

    router.include_router(_data_routes(page), dependencies=[Depends(readable)])
    return router


def _data_routes(page: Page) -> APIRouter:
    data = APIRouter(prefix="/page")  # where it is included, the prefix would be missing in logs and metrics

    @data.get("/start")
    def start() -> Response:
        return _json(_start(page))

    @data.get("/items")
    def items(q: Annotated[str, Query(max_length=200)] = "") -> Response:
        found = page.catalogue.search(q, FOUND)
        return _json({"items": [page.catalogue.describe(item) for item in found]})

    @data.get("/items/{item_id}/embedding")
    async def embedding(item_id: _ItemText) -> Response:
        ids = _ids([item_id])
        vectors, known = await page.calls.in_thread(lambda: page.engine.embeddings(ids))
        if not known[0]:
            raise Problem(404, "", f"item {item_id} has no vector of this model")
        return _json({"embedding": vectors[0].tolist()})

    @data.get("/map")
    def item_map() -> Response:
        return _json(_map(page))

    @data.post("/explanation")
    async def explanation(made_up: MadeUpHistory) -> Response:
        history = _ids(made_up.history)
        return _json(await page.calls.in_thread(lambda: _explained(page, "", history)))

    @data.get("/users/{user_id:path}")  # an id may contain a slash
    async def user(user_id: str) -> Response:
        stored = await page.local.call(lambda: _stored(page, user_id))
        history = stored.pop("items")
        explained = await page.calls.in_thread(lambda: _explained(page, user_id, history))
        return _json(explained | stored)

    @data.get("/live")
    async def live(user: Annotated[str | None, Query(max_length=1000)] = None) -> Response:
        if page.live.is_full:
            raise unavailable("as many browsers as service.page_listeners follow the stream already; close one")
        return StreamingResponse(_events(page, user), media_type="text/event-stream", headers=_NOT_STORED)

    return data


async def _events(page: Page, user: str | None) -> AsyncIterator[bytes]:
    """Yield server-sent events until the browser leaves or the service stops: the state each second, the user's."""
    async with page.live.listen(user) as listener:
        while not page.live.is_stopping:
            yield _event("state", _state(page))
            due = time.monotonic() + _STATE_INTERVAL_S
            while (left := due - time.monotonic()) > 0:
                try:
                    happened = await asyncio.wait_for(listener.events.get(), left)
                except asyncio.TimeoutError:
                    break
                yield _event("user", happened._asdict())


def _start(page: Page) -> dict[str, Any]:
    found = page.catalogue.search("", FOUND)
    return {
        "model_version": page.model_version,
        "history_length": page.history_length,
        "named": page.catalogue.named,
        "items": [page.catalogue.describe(item) for item in found],
    }


def _map(page: Page) -> dict[str, Any]:
    """Return the state of the map, and the sampled items with their positions if it is ready."""
    state, fault = page.map.state()
    if page.map.map is None:
        return {"state": state, "fault": fault, "items": []}
    positions = _rounded(page.map.map.positions)
    items = zip(page.map.map.ids.tolist(), positions, strict=True)
    return {"state": state, "fault": "", "items": [page.catalogue.describe(item) | {"at": at} for item, at in items]}


def _stored(page: Page, user_id: str) -> dict[str, Any]:
    """Return what the workers have written of a user; `items` are an array, the rest JSON values."""
    replicas = _replicas(page)  # before the reads: a copy that was complete before has what there was
    (history,) = page.histories.get([user_id])
    newest = page.newest.get(user_id)
    return {
        "items": np.empty(0, np.int64) if history is None else history.items,
        "stored": None if history is None else _fence(history),
        "newest": None if newest is None else _newest(page, newest),
        "replicas": replicas,
    }


def _explained(page: Page, user: str, history: IdVector) -> dict[str, Any]:
    """Return the explanation of a history, (n,) item ids; the lists are empty where nothing can be recalled."""
    begin = time.perf_counter()
    found = page.explainer.explain(user, history)
    took_ms = 1000 * (time.perf_counter() - begin)
    described = {"history": [page.catalogue.describe(item) for item in history[::-1].tolist()], "took_ms": took_ms}
    if found is None:
        return described | {"clicks": [], "interests": [], "merged": [], "unknown": list(map(str, history.tolist()))}
    explanation, steps = found
    lists = [*explanation.recalled, explanation.merged]
    shown = {click.item for click in explanation.clicks} | {one.item for part in lists for one in part}
    return (
        described
        | {
            "clicks": [
                page.catalogue.describe(click.item) | {"shares": click.shares, "feeds": click.feeds}
                for click in explanation.clicks
            ],
            "unknown": list(map(str, explanation.unknown)),
            "interests": [
                {"fed_by": explanation.fed_by(k), "recalled": [_recalled(page, one) for one in recalled]}
                for k, recalled in enumerate(explanation.recalled)
            ],
            "cosines": explanation.cosines,
            "merged": [_recalled(page, one) for one in explanation.merged],
        }
        | _places(page, explanation, steps, sorted(shown))
    )


def _places(page: Page, explanation: Explanation, steps: RecallSteps, items: Sequence[int]) -> dict[str, Any]:
    """Return where interests and items are on the map; empty while there is no map."""
    item_map = page.map.map
    if item_map is None:
        return {"interest_places": [], "places": {}}
    ids = np.array(items, dtype=np.int64)
    vectors, known = page.engine.embeddings(ids)
    placed = _rounded(item_map.place_items(ids[known], vectors[known]))
    interests = _rounded(item_map.place(steps.interests[: len(explanation.recalled)]))
    return {"interest_places": interests, "places": dict(zip(map(str, ids[known].tolist()), placed, strict=True))}


def _rounded(positions: FloatMatrix) -> list[list[float]]:
    rounded: list[list[float]] = positions.astype(np.float64).round(4).tolist()  # float32 has longer decimals
    return rounded


def _recalled(page: Page, one: Recalled) -> dict[str, Any]:
    return page.catalogue.describe(one.item) | {"score": one.score, "interest": one.interest, "seen": one.seen}


def _fence(history: UserHistory) -> dict[str, Any]:
    return {"partition": history.partition, "offset": history.offset, "updated_at": history.updated_at}


def _newest(page: Page, r: Recommendation) -> dict[str, Any]:
    best = zip(r.item_ids, r.interests, strict=True)
    items = [page.catalogue.describe(int(item)) | {"interest": int(interest)} for item, interest in best]
    return {
        "items": items[:LIST_LENGTH],
        "model_version": r.model_version,
        "source": {"partition": r.source_partition, "offset": r.source_offset},
        "ts": r.ts,
    }


def _replicas(page: Page) -> dict[str, Any]:
    lags = {"histories": page.histories.lag(), "recommendations": page.newest.lag()}
    return {name: dataclasses.asdict(lag) for name, lag in lags.items()}


def _state(page: Page) -> dict[str, Any]:
    state = page.live.state
    return {
        "figures": None if state.figures is None else dataclasses.asdict(state.figures),
        "age_s": page.live.age_s(state),
        "lag": state.lag,
        "fault": state.fault,
        "replicas": _replicas(page),
    }


def _ids(texts: Sequence[str]) -> IdVector:
    ids = [int(text) for text in texts]
    for item in ids:
        if fault := fault_of_item_id(item):
            raise Problem(422, "out-of-range", fault)
    return np.array(ids, dtype=np.int64)


def _file(name: str) -> FileResponse:
    if name not in FILES:
        raise Problem(404, "", "the page has no such file")
    path = FILES[name]
    return FileResponse(path, headers=HEADERS, media_type=_TYPES[path.suffix])


def _json(values: dict[str, Any]) -> Response:
    return Response(orjson.dumps(values), media_type="application/json", headers=_NOT_STORED)


def _event(name: str, values: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(values) + b"\n\n"
