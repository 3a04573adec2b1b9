"""What the router counts. What happens on every request is resolved once per snapshot (`routes`)."""

from collections.abc import Callable
from typing import Protocol

from control_plane.adapters.metrics import Metrics
from control_plane.telemetry import Metric


class Counting(Protocol):
    def inc(self) -> None: ...


class Meter:
    """The metrics of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("model_name", "status", "variant", "version")
        self._predictions = metrics.counter(Metric.PREDICTIONS, "Predictions asked for, by how they ended.", labels)
        self._latency = metrics.histogram(
            Metric.PREDICTION_LATENCY, "Seconds from the complete request to the answer.", ("model_name",)
        )
        self._fallbacks = metrics.counter(
            Metric.FALLBACKS, "Predictions answered by another version.", ("model_name", "reason")
        )
        self._shed = metrics.counter(Metric.SHED, "Requests refused before a server was asked.", ("model_name",))
        self._unlogged = metrics.counter(
            Metric.UNLOGGED, "Predictions answered with logged: false; their records are lost.", ("model_name",)
        )
        self._revision = metrics.gauge(Metric.SNAPSHOT_REVISION, "Revision of the snapshot in use.", ("router_id",))
        self.render = metrics.render

    def predictions(self, model: str, status: str, variant: str | None, version: str | None) -> Counting:
        return self._predictions.labels(model, status, variant or "", version or "")

    def latency(self, model: str) -> Callable[[float], None]:
        return self._latency.labels(model).observe

    def fallbacks(self, model: str, reason: str) -> Counting:
        return self._fallbacks.labels(model, reason)

    def shed(self, model: str) -> Counting:
        return self._shed.labels(model)

    def unlogged(self, model: str) -> Counting:
        return self._unlogged.labels(model)

    def revision(self, router_id: str, number: int) -> None:
        self._revision.labels(router_id).set(number)
