"""The routes that are asked most often, without FastAPI's layers, which take more time than all else of a request.

FastAPI describes them, and would give the same answers to valid requests: `DirectRoutes` stands before it, finds their
path in a dict, checks the token, and has Pydantic parse and check the body in one step.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, get_type_hints

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streams.service.access import RequiredScope
from streams.service.problems import Problem

#: Most faults of a body that are looked at: it has room for a million unknown keys, with a text each.
_MAX_FAULTS = 1000


class DirectRoute(APIRoute):
    """A route for POST whose endpoint takes a body in JSON, and nothing else, and returns a `Response`.

    Use it as the `route_class` of a router whose only dependencies are those of `Access.requires`: others would not be
    called. `DirectRoutes` answers its requests.

    Raises:
        TypeError: the endpoint, or a dependency, is of another kind.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        hints = get_type_hints(endpoint)
        bodies = [hints[name] for name in inspect.signature(endpoint).parameters]
        checks = [depends.dependency for depends in self.dependencies]
        self._required = [check for check in checks if isinstance(check, RequiredScope)]
        if len(bodies) != 1 or hints["return"] is not Response or "{" in path or self.methods != {"POST"}:
            raise TypeError(
                f"{path}: a direct route is a POST with one body, without parameters, that returns a Response"
            )
        if len(self._required) != len(checks):
            raise TypeError(f"{path}: a direct route has no dependency other than the scopes")
        self._body = TypeAdapter(bodies[0])
        self._respond = endpoint

    async def respond(self, request: Request) -> Response:
        """Return the answer to a request.

        Raises:
            Problem: the caller has not the scope, or has left; the body is no JSON, or has too many faults.
            RequestValidationError: the body is invalid.
            Exception: what the endpoint raised.
        """
        headers = request.headers
        scheme, token = get_authorization_scheme_param(headers.get("authorization"))
        for required in self._required:
            required.check(token if scheme.lower() == "bearer" and token else None)
        if not _is_json(headers.get("content-type", "")):
            detail = "body: send JSON, with the header Content-Type: application/json"
            errors = [{"field": "body", "message": "is not declared as JSON"}]
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", detail, errors=errors)
        try:
            received = await request.body()
        except ClientDisconnect:  # or the server has closed the connection, because it took too long
            raise Problem(HTTPStatus.BAD_REQUEST, "", "the body has not arrived") from None
        try:
            body = self._body.validate_json(received)
        except ValidationError as error:
            raise _invalid(error) from None
        return await self._respond(body)


class DirectRoutes:
    """ASGI middleware that answers the requests for direct routes, and leaves all others to the app.

    Args:
        app: the app, with all routes.
        routes: the direct routes among them.
        answer: returns the answer of a request that raised an error.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Iterable[DirectRoute],
        answer: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._routes: Mapping[str, DirectRoute] = {route.path: route for route in routes}
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.respond(request)
        except Exception as error:  # noqa: BLE001 - a defect, too, gets an answer
            response = await self._answer(request, error)
        await response(scope, receive, send)


def _invalid(error: ValidationError) -> Exception:
    if (found := error.error_count()) > _MAX_FAULTS:
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", f"body: {found} of its fields are wrong")
    faults = error.errors(include_url=False, include_input=False)
    return RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    kind, _, subtype = media_type.partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
