"""RFC 9457 problem+json: the one place where an error becomes a response."""

import math
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from control_plane.contracts.problems import BASE, Problem
from control_plane.errors import (
    ControlPlaneError,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PreconditionRequired,
    RateLimited,
    TooLarge,
    Unauthenticated,
)

log = structlog.get_logger()


def render(error: ControlPlaneError, *, instance: str, trace_id: str | None) -> JSONResponse:
    """The problem document of `error`. Its `extra` members follow the standard ones and never replace them."""
    body: dict[str, Any] = to_jsonable_python(error.extra, fallback=str, inf_nan_mode="constants")
    body |= {"type": BASE + error.type, "title": error.title, "status": error.status, "detail": error.detail}
    body |= {"instance": instance} | ({"trace_id": trace_id} if trace_id else {})
    headers = {"X-Request-Id": trace_id} if trace_id else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(math.ceil(error.extra.get("retry_after_s", 1)))
    return JSONResponse(body, error.status, headers, media_type="application/problem+json")


def _expected(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, ControlPlaneError)
    told = log.warning if exc.status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
    told("refused", slug=exc.type, status=exc.status, detail=exc.detail, reasons=exc.extra.get("reasons"))
    return render(exc, instance=request.url.path, trace_id=_trace(request))


def _malformed(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    if all(error["type"] == "missing" and error["loc"] == ("header", "If-Match") for error in exc.errors()):
        why = "Send in If-Match the ETag that GET gave you: it names what you have seen and are about to change."
        return _expected(request, PreconditionRequired(why))
    reasons = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()]
    kind = request.headers.get("content-type", "")
    if request.method in {"POST", "PUT"} and "json" not in kind and any(r.startswith("body") for r in reasons):
        reasons.append("header.content-type: send application/json")
    return _expected(request, InvalidInput("The request does not fit its schema.", reasons=reasons))


def _http(request: Request, exc: Exception) -> JSONResponse:
    """What the framework itself refuses."""
    assert isinstance(exc, HTTPException)
    match exc.status_code:
        case HTTPStatus.NOT_FOUND:
            error: ControlPlaneError = NotFound(f"There is nothing at {request.url.path}.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            error = MethodNotAllowed(f"{request.url.path} does not take {request.method}.")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            error = TooLarge("The body is larger than allowed.")
        case _:
            error = InvalidInput("The request cannot be read.", reasons=[f"body: {exc.detail}"])
    answer = _expected(request, error)
    answer.headers.update(exc.headers or {})
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):
        answer.headers["Allow"] = ", ".join(methods)
    return answer


def _methods(request: Request) -> list[str]:
    """What the resource takes, all its routes together: the framework names those of the first one alone.

    Of two templates that fit the path, /policies/halt and /policies/{name}, it is the one with fewer names to fill.
    """
    paths: dict[str, dict[str, object]] = request.app.openapi()["paths"]
    asked = {request.url.path, f"/api/v1{request.url.path}"}  # the classic ones are at the root, too
    fits = [template for template in paths if any(compile_path(template)[0].match(path) for path in asked)]
    return [method.upper() for method in paths[min(fits, key=lambda t: t.count("{"))]] if fits else []


def _unexpected(request: Request, exc: Exception) -> JSONResponse:
    """A mistake of ours: the log has everything, the answer nothing but the trace id that leads there."""
    log.error("unexpected", exc_info=exc, path=request.url.path)
    error = ControlPlaneError("Something went wrong here; the log has the details under this trace id.")
    return render(error, instance=request.url.path, trace_id=_trace(request))


def _trace(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ControlPlaneError, _expected)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def responses(*errors: type[ControlPlaneError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses=` for the errors a route may raise."""
    found: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        known = found.get(error.status, {}).get("description")
        title = f"{known}; {error.type}: {error.title}" if known else f"{error.type}: {error.title}"
        found[error.status] = {"description": title, "content": {"application/problem+json": {"schema": _SCHEMA}}}
    return found


_SCHEMA = Problem.model_json_schema()
