"""Metrics of one worker, in Prometheus' multiprocess files where a folder is given. Labels are resolved once."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector

INFERENCE = "model_inference_latency_seconds"  # [model_name, version]; one call of the model, seen by each of its rows
WARNINGS = "model_input_warnings_total"  # [model_name, version, feature, kind]; kind: unseen, out_of_range
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_log = logging.getLogger(__name__)
_RESERVED_BYTES = 64 * 1024  # per file
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def use_folder(folder: str | None) -> None:
    """Name the folder of the multiprocess files. Before anything imports prometheus_client, which reads it once."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


class Metrics:
    """Made in the worker, after the fork.

    `identity`: names its files. It is the same for the worker's successor, which goes on counting where this one
    stopped, so that no number of restarts makes more files.
    """

    def __init__(self, model: str, version: str, identity: str | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram, values

        if identity is not None and (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")):
            try:
                for kind in ("counter", "histogram"):
                    _reserve(Path(folder) / f"{kind}_{identity}.db")
                values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
            except OSError as exc:  # a full disk: count in memory, where only this process sees it
                _log.warning("metrics are not shared", extra={"error": exc.strerror})
                values.ValueClass = values.MutexValue
        self._mine = {"model_name": model, "version": version}
        self._registry = CollectorRegistry()
        labels = tuple(self._mine)
        help_text = "Seconds one call of the model took, seen by each of its rows."
        inference = Histogram(INFERENCE, help_text, labels, buckets=_BUCKETS, registry=self._registry)
        self._inference = inference.labels(model, version)
        names = (*labels, "feature", "kind")
        help_text = "Features served although outside what was declared."
        self._warnings = Counter(WARNINGS, help_text, names, registry=self._registry)

    def observe(self, seconds: float, rows: int) -> None:
        """One call of the model that answered `rows` rows."""
        observe: Callable[[float], None] = self._inference.observe
        for _ in range(rows):
            observe(seconds)

    def warn(self, feature: str, kind: str) -> None:
        self._warnings.labels(self._mine["model_name"], self._mine["version"], feature, kind).inc()

    def exposition(self) -> bytes:
        """This version's series, summed over its workers, dead ones included.

        The folder is shared by all data-plane processes of the host; series of others are theirs to expose.
        """
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess

        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        everything = CollectorRegistry()
        multiprocess.MultiProcessCollector(everything)  # type: ignore[no-untyped-call]
        registry.register(_Only(everything, self._mine))
        return generate_latest(registry)


def _reserve(path: Path) -> None:
    """Give the file its blocks now: writing to a hole of a mapped file on a full disk kills the process (SIGBUS)."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _RESERVED_BYTES)
    except OSError:
        if os.fstat(descriptor).st_size == 0:
            path.unlink()  # nobody could read an empty one
        raise
    finally:
        os.close(descriptor)


class _Only:
    """A collector's metrics, cut down to the series with these labels."""

    def __init__(self, inner: "Collector", labels: dict[str, str]) -> None:
        self._inner, self._labels = inner, labels.items()

    def collect(self) -> "list[Metric]":
        kept: list[Metric] = []
        for metric in self._inner.collect():
            if metric.name in {INFERENCE, WARNINGS.removesuffix("_total")}:
                metric.samples = [s for s in metric.samples if self._labels <= s.labels.items()]
                if metric.samples:
                    kept.append(metric)
        return kept
