"""Spans of predictions whose caller traces them, sent by OTLP. Off, and never imported, unless a collector is named.

OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT names one; OTEL_SDK_DISABLED=true wins over both.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from model_servers.runtime.problems import Refused
from model_servers.runtime.request import JSON, Request

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_PARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_log = logging.getLogger(__name__)


def tracer(model: str, version: str, environ: Mapping[str, str] = os.environ) -> "Tracer | None":
    """None while tracing is off or cannot be had, which the log says. After a fork: it has a thread."""
    named = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not named or off:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as exc:
        _log.error("otel.off", extra={"error": str(exc), "change": "install opentelemetry, or unset OTEL_*"})
        return None
    attributes = {"mlcp.model": model, "mlcp.version": version}
    if not environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = "mlcp-model-server"
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("mlcp")


def traced(tracer: "Tracer", name: str, handle: Callable[[Request], None]) -> Callable[[Request], None]:
    """`handle`, with a span from the complete request to its answer where the caller sent a sampled traceparent."""
    from opentelemetry import trace

    def wrapped(request: Request) -> None:
        parent = _PARENT.fullmatch(request.traceparent)
        if parent is None or not int(parent[3], 16) & 1:
            handle(request)
            return
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        remote = trace.SpanContext(int(parent[1], 16), int(parent[2], 16), is_remote=True, trace_flags=flags)
        context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        span = tracer.start_span(name, context, kind=trace.SpanKind.SERVER)
        try:
            handle(_Traced(request, span))
        except Refused as refused:
            _end(span, refused.status)
            raise
        except BaseException:
            _end(span, 500)
            raise

    return wrapped


class _Traced(Request):
    """The request, whose answer ends its span."""

    __slots__ = ("_inner", "_span")

    def __init__(self, inner: Request, span: "Span") -> None:
        super().__init__(inner.connection)
        self._inner, self._span = inner, span
        self.body, self.path, self.siblings, self.finished = inner.body, inner.path, inner.siblings, inner.finished
        self.header_length = inner.header_length

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        self._inner.respond(status, body, content_type, extra)
        _end(self._span, status)

    def refuse(self, refused: Refused) -> None:
        self._inner.refuse(refused)
        _end(self._span, refused.status)


def _end(span: "Span", status: int) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end()
