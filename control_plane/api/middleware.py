"""What happens around every request: an id, a line in the log, a limit on the body."""

import re
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.otel import Tracer
from control_plane.adapters.store import ids
from control_plane.api import problems
from control_plane.errors import TooLarge
from control_plane.telemetry import Metric

log = structlog.get_logger()
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_DRAIN = 64 * 2**20  # bytes of a refused body still read, so that the client gets to see the answer


Counted = Callable[[str, int, float], None]  # method, status, seconds
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})  # a client's words are no labels


def counter(metrics: Metrics) -> Counted:
    """Counts requests by method and status, and times them. Long polls are left out: they wait on purpose."""
    requests = metrics.counter(Metric.API_REQUESTS, "Requests to the admin API.", ("method", "status"))
    seconds = metrics.histogram(Metric.API_LATENCY, "Seconds the admin API took to answer.", ("method",))

    def count(method: str, status: int, took_s: float) -> None:
        known = method if method in _METHODS else "other"
        requests.labels(known, str(status)).inc()
        seconds.labels(known).observe(took_s)

    return count


class RequestId:
    """Outermost. The caller's X-Request-Id if it can be used, else our own; in the answer, the log and the audit."""

    def __init__(self, app: ASGIApp, tracer: Tracer | None = None, counted: Counted | None = None) -> None:
        """`tracer`: traces requests whose caller does, and some others; their trace is in the log too."""
        self._app, self._tracer, self._counted = app, tracer, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        span = None if self._tracer is None else self._tracer.begin(scope["method"], _header(scope, b"traceparent"))
        given = _header(scope, b"x-request-id")
        request_id = given.decode() if given and _GIVEN.fullmatch(given) else str(ids.new())
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        status, began = 0, time.perf_counter()

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-request-id", request_id.encode())]}
            await send(message)

        named = {"request_id": request_id} | ({} if span is None else {"trace_id": span.trace_id})
        with structlog.contextvars.bound_contextvars(**named):
            try:
                await self._app(scope, receive, tell)
            finally:
                took = round((time.perf_counter() - began) * 1_000, 1)
                log.info("request", method=scope["method"], path=scope["path"], status=status, ms=took)
                if self._counted is not None and b"wait_s=" not in scope["query_string"]:
                    self._counted(scope["method"], status or 500, took / 1_000)
                if span is not None:
                    span.end(status or 500, {"url.path": scope["path"], "mlcp.request_id": request_id})


_OUTCOMES = {202: "accepted", 401: "unsigned", 403: "forbidden", 409: "replayed", 413: "oversized", 422: "malformed"}


def webhook_counter(metrics: Metrics) -> Callable[[str, int], None]:
    """Counts webhooks by what became of them."""
    seen = metrics.counter(Metric.WEBHOOKS, "Webhooks that came, by what became of them.", ("webhook", "outcome"))

    def count(webhook: str, status: int) -> None:
        seen.labels(webhook, _OUTCOMES.get(status, "error")).inc()

    return count


class WebhookCounts:
    """Counts every request to a webhook by its answer, also those that are refused before any route."""

    def __init__(self, app: ASGIApp, counted: Callable[[str, int], None] | None = None) -> None:
        self._app, self._counted = app, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, _, webhook = str(scope.get("path", "")).rpartition("/webhooks/")
        counted = self._counted
        if (
            counted is None
            or scope["type"] != "http"
            or not path.endswith("/v1")
            or webhook not in {"alertmanager", "alerts", "mlflow"}
        ):
            await self._app(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                counted(webhook, message["status"])
            await send(message)

        await self._app(scope, receive, tell)


class BodyLimit:
    """Reads the body before anyone else does and refuses one above `limit` bytes with 413, declared or not."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, size, more = bytearray(), 0, True
        while more and size <= self._limit + _DRAIN:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            piece = message.get("body", b"")
            size += len(piece)
            if size <= self._limit:
                body += piece
            more = message.get("more_body", False)
        if size > self._limit:
            await self._refuse(scope, receive, send)
            return
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(f"The body is larger than {self._limit} bytes.", limit=self._limit)
        log.info("refused", slug=error.type, status=error.status, detail=error.detail)
        answer = problems.render(error, instance=scope["path"], trace_id=scope["state"]["request_id"])
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)
