"""Errors as callers see them: problem details (RFC 9457), with the id of the request and without a stack trace."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from configs.errors import MindstreamError, TransientError
from streams.errors import BadMessage, RefusedData, RestartRequired

_LOG = logging.getLogger("mindstream.service")

MEDIA_TYPE = "application/problem+json"
#: Seconds after which a caller should try again when a server is unavailable, or too many requests wait.
RETRY_AFTER_S = 1
#: Statuses of every route that needs a scope: an unknown host name, and a defect.
_ANY_ROUTE = (421, 500)
#: Errors in the fields of a body that are listed; a body can have a million.
_MAX_ERRORS = 20


class Problem(HTTPException, MindstreamError):  # noqa: N818 - the term of RFC 9457
    """An error that a route answers with.

    Args:
        status: HTTP status.
        kind: name of this kind of problem, the last part of `type`; "" = the status says it all.
        detail: what is wrong with this request, with the remedy.
        headers: more headers of the answer.
        errors: the fields that are wrong.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind = kind
        self.errors = errors


def unavailable(detail: str) -> Problem:
    """Return the problem of a request that may succeed later."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, {"Retry-After": str(RETRY_AFTER_S)})


def limit_exceeded(field: str, found: int, limit: int, setting: str) -> Problem:
    """Return the problem of a field with more than the service accepts."""
    message = f"{field}: {found} is more than {limit}, the limit of this service (service.{setting})"
    errors = [{"field": field, "message": message, "limit": limit}]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "limit-exceeded", message, errors=errors)


class FieldError(BaseModel):
    """One field of a request that is wrong."""

    field: str = Field(description="Its place, such as body.requests.0.top_k.")
    message: str
    limit: int | float | None = Field(None, description="The limit that it exceeds, if there is one.")


class ProblemBody(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="The kind of problem; about:blank = what the status says.")
    title: str
    status: int
    detail: str
    request_id: str = Field(description="The request's id, as in the header X-Request-ID and in the log.")
    errors: list[FieldError] = Field(default=[], description="The fields of the request that are wrong.")


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route for its OpenAPI description: these, and those of every route."""
    return {status: _declaration(status) for status in sorted({*statuses, *_ANY_ROUTE})}


def _declaration(status: int) -> dict[str, Any]:
    declaration: dict[str, Any] = {
        "model": ProblemBody,
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry = "Seconds after which to try again."
        declaration["headers"] = {"Retry-After": {"description": retry, "schema": {"type": "integer"}}}
    return declaration


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return the answer of a problem."""
    body: dict[str, Any] = {
        "type": f"urn:mindstream:problem:{problem.kind}" if problem.kind else "about:blank",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "detail": problem.detail,
        "request_id": request_id,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    # Not orjson, which refuses what a detail may quote from a body: half of a surrogate pair.
    return Response(json.dumps(body), problem.status_code, problem.headers, MEDIA_TYPE)


def as_problem(error: Exception) -> Problem:
    """Return the problem of an error that a route has raised; what callers cannot change is logged, not sent."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, "", str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, BadMessage):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason.replace("_", "-"), error.detail)
    if isinstance(error, RefusedData):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "refused", str(error))
    if isinstance(error, TransientError):
        _LOG.warning("%s", error)
        return unavailable(
            f"{error.system} gives no answer, or no complete one; try again. /readyz says what is missing"
        )
    if isinstance(error, RestartRequired):
        return unavailable("the service has to start again; try again")
    if isinstance(error, MindstreamError):
        _LOG.error("%s", error)
    else:
        _LOG.error("a request failed", exc_info=error)
    detail = "the service cannot answer; its log has the reason, under this request's id"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "", detail)


def _invalid(error: RequestValidationError) -> Problem:
    found = error.errors()
    errors = []
    for fault in found[:_MAX_ERRORS]:
        context = fault.get("ctx") or {}
        limits = [context[name] for name in ("max_length", "le", "lt", "min_length", "ge", "gt") if name in context]
        errors.append(
            {
                "field": ".".join(map(str, fault["loc"])),
                "message": fault["msg"],
                **({"limit": limits[0]} if limits and isinstance(limits[0], int | float) else {}),
            }
        )
    more = f" (and {len(found) - len(errors)} more)" if len(found) > len(errors) else ""
    detail = "; ".join(f"{one['field']}: {one['message']}" for one in errors) + more
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", detail, errors=errors)


Answer = Callable[[Request, Exception], Awaitable[Response]]


def error_answers(on_restart: Callable[[RestartRequired], object]) -> Answer:
    """Return what answers every error with problem details, and reports those that only a new process can end."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, RestartRequired):
            on_restart(error)
        return problem_response(as_problem(error), request.state.request_id)

    return answer


def install(app: FastAPI, answer: Answer) -> None:
    """Have the app answer errors in this way."""
    for kind in (HTTPException, RequestValidationError, MindstreamError):
        app.add_exception_handler(kind, answer)
