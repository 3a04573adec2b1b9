"""Metrics of one worker, in Prometheus' multiprocess files where a folder is given.

Requests count in plain numbers; a quarter of a second after the first of them, at a scrape of this worker and at its
end they are brought to the files, which costs as much as the answer to a row.
"""

import logging
import os
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector

INFERENCE = "model_inference_latency_seconds"  # [model_name, version]; one call of the model, seen by each of its rows
WARNINGS = "model_input_warnings_total"  # [model_name, version, feature, kind]; kind: unseen, out_of_range
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
FLUSH_S: Final = 0.25  # how old the figures of another worker may be in a scrape
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

    def __init__(
        self,
        model: str,
        version: str,
        identity: str | None = None,
        *,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """`later(seconds, call)`: the event loop's; None: everything is brought to the files at once."""
        from prometheus_client import CollectorRegistry, Counter, Histogram, values

        if identity is not None and (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")):
            try:
                for kind in ("counter", "histogram"):
                    _reserve(Path(folder) / f"{kind}_{identity}.db")
                values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
            except OSError as exc:  # a full disk: count in memory, where only this process sees it
                _log.warning("metrics are not shared", extra={"error": exc.strerror})
                values.ValueClass = values.MutexValue
        self._later = later
        self._due = False  # `flush` is on its way
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0
        self._warned: dict[tuple[str, str], int] = {}  # by feature and kind
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
        self._counts[bisect_left(_BUCKETS, seconds)] += rows
        self._sum += seconds * rows
        if not self._due:
            self._flush_soon()

    def warn(self, feature: str, kind: str) -> None:
        self._warned[feature, kind] = self._warned.get((feature, kind), 0) + 1
        if not self._due:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._later is None:
            self.flush()
        else:
            self._due = True
            self._later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Bring what was counted since the last time to the files."""
        self._due = False
        # The library has no call for many observations at once; a test holds this equal to its own `observe`.
        inner = cast("Any", self._inference)
        if self._sum:
            inner._sum.inc(self._sum)
            self._sum = 0.0
        for index, count in enumerate(self._counts):
            if count:
                inner._buckets[index].inc(count)
                self._counts[index] = 0
        warned, self._warned = self._warned, {}
        for (feature, kind), count in warned.items():
            self._warnings.labels(self._mine["model_name"], self._mine["version"], feature, kind).inc(count)

    def exposition(self) -> bytes:
        """This version's series, summed over its workers, dead ones included.

        The folder is shared by all data-plane processes of the host; series of others are theirs to expose.
        """
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess

        self.flush()
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
