"""The FastAPI app of the service, from its routers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse

from configs.schema import Service
from streams.errors import RestartRequired
from streams.metrics import ServiceMetrics
from streams.service.access import known_hosts
from streams.service.direct import DirectRoute, DirectRoutes
from streams.service.middleware import REQUEST_ID, RequestFrame
from streams.service.problems import MEDIA_TYPE, error_answers, install
from streams.service.reference import HEADERS, reference

_DESCRIPTION = """Recommendations over HTTP, from the same engine as Mindstream's workers.

Errors are problem details (RFC 9457). `503` means that Milvus or Kafka is unavailable, or too many requests wait: try
again after `Retry-After` seconds."""


#: What FastAPI makes of the bounds of 64-bit integers, which it describes as floats → the bounds.
_BOUNDS = {float(2**63): 2**63 - 1, -float(2**63): -(2**63)}


class _App(FastAPI):
    """FastAPI with two corrections of its document.

    It describes every model of an answer as JSON, also problems, and the largest 64-bit integer as the next float,
    which is larger.
    """

    def openapi(self) -> dict[str, Any]:
        document: dict[str, Any] = _with_exact_bounds(super().openapi())
        for operations in document["paths"].values():
            for operation in operations.values():
                for answer in operation["responses"].values():
                    if MEDIA_TYPE in answer.get("content", {}):
                        answer["content"].pop("application/json", None)
        return document


def _with_exact_bounds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_exact_bounds(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_exact_bounds(inner) for inner in value]
    return _BOUNDS.get(value, value) if isinstance(value, float) else value


def service_app(
    settings: Service,
    routers: Sequence[APIRouter],
    metrics: ServiceMetrics,
    running: Sequence[AbstractAsyncContextManager[object]] = (),
    on_restart: Callable[[RestartRequired], object] = lambda _: None,
) -> FastAPI:
    """Return the app.

    Args:
        settings: limits and origins.
        routers: the routes.
        metrics: counts requests.
        running: entered before the first request, in this order, and left after the last one, in reverse.
        on_restart: called when only a new process can continue.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for resource in running:
                await stack.enter_async_context(resource)
            yield

    app = _App(
        title="Mindstream", version="1", description=_DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    answer = error_answers(on_restart)
    install(app, answer)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:  # FastAPI's own loads its scripts from the internet
        return HTMLResponse(reference(app.openapi()), headers=HEADERS)

    for router in routers:
        app.include_router(router)
    direct = [route for router in routers for route in router.routes if isinstance(route, DirectRoute)]
    app.add_middleware(DirectRoutes, routes=direct, answer=answer)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    # The outermost one.
    app.add_middleware(
        RequestFrame, max_body_bytes=settings.max_body_bytes, hosts=known_hosts(settings), metrics=metrics
    )
    return app
