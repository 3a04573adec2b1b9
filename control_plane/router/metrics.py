"""What the router counts. What happens on every request is counted in memory; `flush` brings it to the shared files."""

import time

from control_plane.adapters.metrics import Family, Metrics, Tally, Timings
from control_plane.telemetry import Metric

_REASONS = ("dead", "deadline", "error", "open", "4xx")  # why another version answered


class Meter:
    """The metrics of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("model_name", "status", "variant", "version")
        self._metrics = metrics
        self._predictions = metrics.counter(Metric.PREDICTIONS, "Predictions asked for, by how they ended.", labels)
        self._latency = metrics.histogram(
            Metric.PREDICTION_LATENCY, "Seconds from the complete request to the answer.", ("model_name",)
        )
        self._fallbacks = metrics.counter(
            Metric.FALLBACKS, "Predictions answered by another version.", ("model_name", "reason")
        )
        self._shed = metrics.counter(Metric.SHED, "Requests refused before a server was asked.", ("model_name",))
        self._limited = metrics.counter(
            Metric.RATE_LIMITED, "Requests refused by the rate limit of a key or of a model.", ("model_name", "limit")
        )
        self._unlogged = metrics.counter(
            Metric.UNLOGGED, "Predictions answered with logged: false; their records are lost.", ("model_name",)
        )
        self._revision = metrics.gauge(Metric.SNAPSHOT_REVISION, "Revision of the snapshot in use.", ("router_id",))
        what = "When it last said that it lives, in Unix time."
        self._heartbeat = metrics.gauge(Metric.HEARTBEAT, what, ("process",)).labels("router")
        # Labels come from snapshots and from fixed words, so these stay small; they outlive a snapshot.
        self._tallies: dict[tuple[str, ...], Tally] = {}
        self._timings: dict[str, Timings] = {}

    def predictions(self, model: str, status: str, variant: str | None, version: str | None) -> Tally:
        labels = (model, status, variant or "", version or "")
        if labels not in self._tallies:
            self._tallies[labels] = Tally(self._predictions.labels(*labels))
        return self._tallies[labels]

    def latency(self, model: str) -> Timings:
        if model not in self._timings:
            self._timings[model] = Timings(self._latency.labels(model))
        return self._timings[model]

    def fell_back(self, model: str, reason: str) -> None:
        self._fallbacks.labels(model, reason).inc()

    def shed(self, model: str) -> None:
        self._shed.labels(model).inc()

    def rate_limited(self, model: str, limit: str) -> None:
        """`limit`: key or model."""
        self._limited.labels(model, limit).inc()

    def unlogged(self, model: str) -> None:
        self._unlogged.labels(model).inc()

    def revision(self, router_id: str, number: int) -> None:
        self._revision.labels(router_id).set(number)

    def beat(self) -> None:
        self._heartbeat.set(time.time())

    def seen(self, model: str) -> None:
        """Make the rare series of a model exist: an alert rule cannot watch what is not there yet."""
        self._shed.labels(model)
        self._unlogged.labels(model)
        for reason in _REASONS:
            self._fallbacks.labels(model, reason)
        for limit in ("key", "model"):
            self._limited.labels(model, limit)

    def flush(self) -> None:
        """Bring everything counted in memory to the shared files. Cheap; called a few times a second."""
        for tally in self._tallies.values():
            tally.flush()
        for timings in self._timings.values():
            timings.flush()

    def families(self) -> list[Family]:
        """The metrics of all processes of the host, as data. Blocks; another thread may call it."""
        return self._metrics.families()

    def render(self) -> bytes:
        """The metrics of all processes of the host; those of other workers are up to one flush old."""
        return self._metrics.render()
