"""`python -m control_plane.api.mlflow_gate`: the only way to MLflow in production.

MLflow has no authentication of its own. This process asks for the keys and tokens the admin API takes, holds each
request against `domain/governance/registry_access.py`, and passes it on as it came, streamed both ways. Clients need
nothing but MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN; a browser is asked for a name and a key.
"""

import base64
import binascii
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from control_plane import telemetry
from control_plane.adapters import store
from control_plane.adapters.metrics import Metrics
from control_plane.api.auth import identify, permit
from control_plane.api.door import Door
from control_plane.api.middleware import RequestId
from control_plane.contracts.problems import BASE
from control_plane.domain.governance import Action, registry_access
from control_plane.domain.governance.registry_access import Kind
from control_plane.errors import (
    ControlPlaneError,
    Forbidden,
    InvalidInput,
    RegistryUnavailable,
    TooLarge,
    Unauthenticated,
)
from control_plane.settings import GateSettings

log = structlog.get_logger()
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_NAMING_BODY = 1_048_576  # bytes of a body that has to be read to know what it is about
_SILENCE_S = 300.0  # without a byte from MLflow: it may be moving gigabytes to its own store
_ACTIONS = {Kind.READ: Action.READ, Kind.LOG: Action.TRACK, Kind.REGISTER: Action.TRACK}
_OF_THIS_HOP = {
    b"authorization", b"connection", b"cookie", b"host", b"keep-alive", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
}


def create_gate(settings: GateSettings, metrics: Metrics | None = None) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[dict[str, object]]:
        dsn = settings.postgres_dsn.get_secret_value()
        engine = store.create_engine(dsn, pooler=settings.transaction_pooler)
        door = Door(settings, metrics)
        timeout = httpx.Timeout(_SILENCE_S, connect=5)
        plain = {"Accept-Encoding": "identity"}  # where the client says nothing of its own
        async with httpx.AsyncClient(base_url=settings.mlflow_url, timeout=timeout, headers=plain) as upstream:
            try:
                made = store.sessions(engine)
                yield {"sessionmaker": made, "settings": settings, "door": door, "upstream": upstream}
            finally:
                await door.close()
                await engine.dispose()

    app = Starlette(routes=[Route("/{path:path}", _pass, methods=_METHODS)], lifespan=lifespan)
    app.add_exception_handler(ControlPlaneError, _refused)
    app.add_middleware(RequestId)
    return app


async def _pass(request: Request) -> Response:
    asked = registry_access.wanted(request.method, request.url.path)
    body: AsyncIterator[bytes] | bytes = request.stream()
    if asked.kind is not Kind.OPEN:
        principal = await identify(request, _credential(request), datetime.now(UTC))
        _same_site(request)
        if asked.kind in {Kind.OURS, Kind.CLOSED}:
            raise Forbidden(asked.why)
        model = None
        if asked.kind is Kind.REGISTER:
            body = await _small(request)
            model = _named(request.url.path, body)
        permit(principal, _ACTIONS[asked.kind], model)
    return await _forward(request, body)


async def _forward(request: Request, body: AsyncIterator[bytes] | bytes) -> Response:
    """The same request, and MLflow's answer as it comes: no more of either is held than a piece."""
    upstream: httpx.AsyncClient = request.state.upstream
    raw = request.scope.get("raw_path") or request.url.path.encode()
    url = httpx.URL(f"{str(upstream.base_url).rstrip('/')}{raw.decode('ascii')}", query=request.scope["query_string"])
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _OF_THIS_HOP]
    has_body = any(name.lower() in {b"content-length", b"transfer-encoding"} for name, _ in request.headers.raw)
    try:
        sent = upstream.build_request(request.method, url, headers=headers, content=body if has_body else None)
        answer = await upstream.send(sent, stream=True)
    except httpx.TransportError as exc:
        raise RegistryUnavailable("MLflow does not answer.") from exc
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    passed = StreamingResponse(_pieces(answer), answer.status_code)
    kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _OF_THIS_HOP]
    passed.raw_headers = kept
    return passed


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


def _credential(request: Request) -> str:
    """A bearer token or, of a browser, the password; Unauthenticated for neither."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given:
        return given.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            pass
    raise Unauthenticated("Send a key: MLFLOW_TRACKING_TOKEN=mlcp_..., or as the password of any name.")


def _same_site(request: Request) -> None:
    """A browser sends a password along with what other sites make it send."""
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if request.method not in {"GET", "HEAD"} and (foreign or request.headers.get("sec-fetch-site") == "cross-site"):
        raise Forbidden("This was sent by a page of somebody else.")


async def _small(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _NAMING_BODY:
            raise TooLarge(f"The body is larger than {_NAMING_BODY} bytes.", limit=_NAMING_BODY)
    return bytes(body)


def _named(path: str, body: bytes) -> str:
    """The registered model a body is about. Forbidden where the control plane alone may do what it says."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput("The body is no JSON.") from exc
    members = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if why := registry_access.owned(path, members):
        raise Forbidden(why)
    name = members.get("name")
    if not isinstance(name, str):
        raise InvalidInput("The body names no registered model.", reasons=["body.name: a string"])
    return name


async def _refused(request: Request, exc: Exception) -> Response:
    """A problem document that MLflow's clients can read, too."""
    assert isinstance(exc, ControlPlaneError)
    log.info("refused", slug=exc.type, status=exc.status, detail=exc.detail, path=request.url.path)
    body = {"error_code": _CODES.get(exc.status, "INTERNAL_ERROR"), "message": exc.detail, "type": BASE + exc.type}
    body |= {"title": exc.title, "detail": exc.detail, "instance": request.url.path}
    headers = {"WWW-Authenticate": 'Basic realm="MLflow: any name, a key as the password", Bearer'}
    shown = {**body, "status": exc.status, "trace_id": request.state.request_id}
    return JSONResponse(
        shown, exc.status, headers if exc.status == 401 else None, media_type="application/problem+json"
    )


def main() -> int:
    settings = GateSettings()  # pyright: ignore[reportCallIssue]  (the environment fills it)
    telemetry.configure_logging("mlflow-gate", level=settings.log_level)
    uvicorn.run(
        create_gate(settings, Metrics(settings.run / "metrics", "mlflow-gate")),
        host=settings.gate_host,
        port=settings.gate_port,
        log_config=None,
        access_log=False,
        server_header=False,  # MLflow's own pass
        date_header=False,
        timeout_graceful_shutdown=30,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
