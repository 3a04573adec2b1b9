"""Prometheus, in this one module of the control plane: metrics kept in files that all processes of a host share.

A process writes under a fixed name (`router-8080-0`, `ingester`), not under its pid: a restarted one goes on counting
where the last one stopped, and the number of files stays bounded.
"""

import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Family = Metric  # one metric with all its series
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_RESERVED_BYTES = 128 * 1024  # per file; enough for a thousand time series
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Metrics:
    """The metrics of this process, kept in `folder` under `identity`. One per process, made before any metric."""

    def __init__(self, folder: Path, identity: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        try:
            for kind in ("counter", "histogram", "gauge_mostrecent"):
                _reserve(folder / f"{kind}_{identity}.db")
            values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
        except OSError as exc:  # a full disk: count in memory, where only this process sees it
            _log.error("metrics.not_shared", folder=str(folder), error=str(exc))
            values.ValueClass = values.MutexValue
        self._folder = folder
        self._registry = CollectorRegistry()

    def counter(self, name: str, what: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def histogram(self, name: str, what: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, what, labels, buckets=LATENCY_BUCKETS_S, registry=self._registry)

    def gauge(self, name: str, what: str, labels: Sequence[str] = ()) -> Gauge:
        """Of several processes that set the same labels the last one counts."""
        return Gauge(name, what, labels, registry=self._registry, multiprocess_mode="mostrecent")

    def render(self) -> bytes:
        """Every metric of every process that writes to the folder, in Prometheus' text format."""
        return generate_latest(self._everything())

    def families(self) -> list[Family]:
        """The same as data."""
        return list(self._everything().collect())

    def _everything(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        return registry


class Tally:
    """A counter of the hot path: counts in memory, `flush` brings it to the shared file. A fifth of the cost."""

    __slots__ = ("_counter", "_n")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._n = 0

    def inc(self) -> None:
        self._n += 1

    def flush(self) -> None:
        n, self._n = self._n, 0
        if n:
            self._counter.inc(n)


class Timings:
    """A histogram of the hot path; see Tally."""

    __slots__ = ("_before", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self._sum = 0.0
        self._before = (0, 0.0)  # brought to the file

    @property
    def total(self) -> tuple[int, float]:
        """How many observations this process made in all, and their sum."""
        return self._before[0] + sum(self._counts), self._before[1] + self._sum

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def flush(self) -> None:
        # The library has no call for many observations at once; a test holds this equal to its own `observe`.
        self._before = self.total
        if self._sum:
            self._histogram._sum.inc(self._sum)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
            self._sum = 0.0
        buckets = cast("list[Counter]", self._histogram._buckets)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        for index, count in enumerate(self._counts):
            if count:
                buckets[index].inc(count)
                self._counts[index] = 0


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
