"""OpenTelemetry, in this one module of the control plane: off, and never imported, unless a collector is named.

The standard variables decide: OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ and _METRICS_ forms), OTEL_SDK_DISABLED,
OTEL_TRACES_SAMPLER with OTEL_TRACES_SAMPLER_ARG, OTEL_METRIC_EXPORT_INTERVAL, OTEL_RESOURCE_ATTRIBUTES,
OTEL_SERVICE_NAME. Where no sampler is named, one request in a hundred is traced, and every one whose caller traces it.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer as OtelTracer
    from prometheus_client import Metric

DEFAULT_RATIO: Final = 0.01
_PARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED: Final = 1
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Span:
    """One traced request. `traceparent` goes to whoever is asked on its behalf."""

    __slots__ = ("_span", "trace_id", "traceparent")

    def __init__(self, span: "OtelSpan") -> None:
        context = span.get_span_context()
        self._span = span
        self.trace_id = f"{context.trace_id:032x}"
        self.traceparent = b"00-%032x-%016x-01" % (context.trace_id, context.span_id)

    def end(self, status: int, attributes: Mapping[str, str | int | bool]) -> None:
        """`status`: of the HTTP answer. No attribute may name a customer."""
        from opentelemetry.trace import StatusCode

        self._span.set_attributes({**attributes, "http.response.status_code": status})
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracer:
    """Decides which requests are traced, before anything is spent on the others."""

    def __init__(self, tracer: "OtelTracer", ratio: float, *, heeds_parent: bool, stop: Callable[[], None]) -> None:
        self._tracer, self._ratio, self._heeds_parent = tracer, ratio, heeds_parent
        self.stop = stop

    def begin(self, name: str, traceparent: bytes | None) -> Span | None:
        """The span of a request that came with this header; None when it is not traced."""
        parent = _PARENT.fullmatch(traceparent) if traceparent is not None else None
        if parent is not None and self._heeds_parent:
            if not int(parent[3], 16) & _SAMPLED:
                return None
        elif random.random() >= self._ratio:  # noqa: S311  (a sample, not a secret)
            return None
        from opentelemetry import trace

        context = None
        if parent is not None:
            remote = trace.SpanContext(
                int(parent[1], 16), int(parent[2], 16), is_remote=True, trace_flags=trace.TraceFlags(_SAMPLED)
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        return Span(self._tracer.start_span(name, context, kind=trace.SpanKind.SERVER))


def sampling(environ: Mapping[str, str]) -> tuple[float, bool]:
    """The share of requests to trace, and whether a caller's decision goes before it, as the standard names them.

    Raises:
        ValueError: a sampler nobody knows, or a ratio outside of 0..1.
    """
    name = environ.get("OTEL_TRACES_SAMPLER") or "parentbased_traceidratio"
    given = environ.get("OTEL_TRACES_SAMPLER_ARG")
    fixed = {"always_on": 1.0, "always_off": 0.0, "traceidratio": float(given) if given else DEFAULT_RATIO}
    kind = name.removeprefix("parentbased_")
    if kind not in fixed or not 0 <= fixed[kind] <= 1:
        raise ValueError(f"OTEL_TRACES_SAMPLER={name}, OTEL_TRACES_SAMPLER_ARG={given} cannot be used")
    return fixed[kind], name.startswith("parentbased_")


def wanted(signal: str, environ: Mapping[str, str]) -> bool:
    """Whether a collector is named for `signal` ("traces" or "metrics")."""
    upper = signal.upper()
    named = environ.get(f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(f"OTEL_{upper}_EXPORTER") == "none"
    return bool(named) and not off


def tracer(process: str, environ: Mapping[str, str]) -> Tracer | None:
    """The tracer of this process; None while tracing is off or cannot be had, which the log says. After a fork."""
    if not wanted("traces", environ):
        return None
    try:
        ratio, heeds_parent = sampling(environ)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except (ImportError, ValueError) as exc:
        _log.error("otel.off", signal="traces", error=str(exc), change="install mlcp[otel], or unset OTEL_*")
        return None
    provider = TracerProvider(sampler=ALWAYS_ON, resource=_resource(process, environ), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    made = provider.get_tracer("mlcp")
    return Tracer(made, ratio, heeds_parent=heeds_parent, stop=provider.shutdown)


def _resource(process: str, environ: Mapping[str, str]) -> "Resource":
    from opentelemetry.sdk.resources import Resource

    return Resource.create({} if environ.get("OTEL_SERVICE_NAME") else {"service.name": f"mlcp-{process}"})


class _Exporter(Protocol):
    def __call__(self, metrics: "list[OtlpMetric]") -> None: ...


class MetricsPush:
    """Sends what /metrics shows to the collector, from a thread of its own. One speaks for every process of a host."""

    def __init__(self, collect: "Callable[[], Iterable[Metric]]", export: _Exporter, every_s: float) -> None:
        self._collect, self._export, self._every_s = collect, export, every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send once more, and end."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        over = False
        while not over:
            over = self._stopping.wait(self._every_s)
            try:
                self._export([made for family in self._collect() if (made := translated(family)) is not None])
            except Exception as exc:  # noqa: BLE001  (whatever it is: what is pushed is a copy, nobody waits for it)
                _log.warning("otel.metrics_not_sent", error=str(exc))


def push_metrics(
    process: str, environ: Mapping[str, str], collect: "Callable[[], Iterable[Metric]]"
) -> MetricsPush | None:
    """Begin to send `collect()` every OTEL_METRIC_EXPORT_INTERVAL milliseconds; None while that is off."""
    if not wanted("metrics", environ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    except ImportError as exc:
        _log.error("otel.off", signal="metrics", error=str(exc), change="install mlcp[otel], or unset OTEL_*")
        return None
    exporter, resource = OTLPMetricExporter(), _resource(process, environ)

    def export(metrics: "list[OtlpMetric]") -> None:
        scope = ScopeMetrics(InstrumentationScope("mlcp"), metrics, "")
        data = MetricsData([ResourceMetrics(resource, [scope], "")])
        exporter.export(data)  # pyright: ignore[reportUnknownMemberType]  (its **kwargs have no type)

    return MetricsPush(collect, export, float(environ.get("OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1000)


def translated(family: "Metric") -> "OtlpMetric | None":
    """A Prometheus family as OTLP; None for a kind that has no counterpart here. Counters go on over restarts."""
    from opentelemetry.sdk.metrics import export

    now, unit = time.time_ns(), family.unit
    match family.type:
        case "counter" | "gauge":
            points = [
                export.NumberDataPoint(dict(sample.labels), 0, now, sample.value)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            if family.type == "gauge":
                return export.Metric(family.name, family.documentation, unit, export.Gauge(points))
            total = export.Sum(points, export.AggregationTemporality.CUMULATIVE, is_monotonic=True)
            return export.Metric(f"{family.name}_total", family.documentation, unit, total)
        case "histogram":
            points_of = _histogram_points(family, now)
            data = export.Histogram(points_of, export.AggregationTemporality.CUMULATIVE)
            return export.Metric(family.name, family.documentation, unit, data)
        case _:
            return None


def _histogram_points(family: "Metric", now: int) -> "list[HistogramDataPoint]":
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    series: dict[tuple[tuple[str, str], ...], tuple[list[tuple[float, float]], dict[str, float]]] = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", None)
        buckets, totals = series.setdefault(tuple(sorted(labels.items())), ([], {}))
        if bound is not None:
            buckets.append((float(bound), sample.value))
        else:
            totals[sample.name.removeprefix(family.name)] = sample.value
    points = list[HistogramDataPoint]()
    for key, (buckets, totals) in series.items():
        buckets.sort()
        counts = [
            int(count - before) for (_, count), before in zip(buckets, [0.0, *(c for _, c in buckets)], strict=False)
        ]
        bounds = [bound for bound, _ in buckets if bound != float("inf")]
        count, total = int(totals.get("_count", sum(counts))), totals.get("_sum", 0.0)
        points.append(HistogramDataPoint(dict(key), 0, now, count, total, counts, bounds, 0.0, 0.0))
    return points
